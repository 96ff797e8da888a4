"""Opens what a user names as a network: ONNX with named layers, and the original to compare."""
