"""The model run on data: moments of each contraction, targets, fidelity."""
