"""What an ONNX model is made of: its channel groups and costs."""
