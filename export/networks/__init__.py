"""What a user names enters, a network leaves: ONNX with named layers, and the original itself."""
