"""From a model to its channel groups."""
