"""Gradients as an ONNX graph: a model with nodes behind it that compute what its weights do to a loss."""
