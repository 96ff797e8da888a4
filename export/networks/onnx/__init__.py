"""Networks that are ONNX already, and what is cut and measured in an ONNX graph."""
