"""Training examples enter, a finished head leaves: chosen, calibrated, written as ONNX."""
