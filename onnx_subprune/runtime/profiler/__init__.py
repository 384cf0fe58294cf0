"""What each layer of a model costs on the machine that this runs on, at a grid of widths; a table for other machines to read.

This folder needs NumPy and onnxruntime alone, and nothing of the package around it: copy it to the machine, and run

    python -m profiler model.onnx -o table.json [--threads 1] [--batch 1] [--shape input=1,3,224,224]
"""
