"""From moments to new weights: the walk through the layers."""
