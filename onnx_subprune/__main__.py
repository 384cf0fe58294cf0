"""python -m onnx_subprune."""

from onnx_subprune.cli import main

main()
