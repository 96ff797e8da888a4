"""Training examples go in; a finished head comes out: chosen, calibrated, written as ONNX."""
