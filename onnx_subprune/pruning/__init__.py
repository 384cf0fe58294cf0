"""The verbs: prune, compare, collect, sensitivity."""
