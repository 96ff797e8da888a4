"""Networks that are ONNX files, and operations on ONNX graphs."""
