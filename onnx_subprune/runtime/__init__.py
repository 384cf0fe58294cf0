"""onnxruntime and the operating system: sessions, memory, threads. Knows no graph."""
