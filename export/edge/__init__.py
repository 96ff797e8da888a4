"""Combines a backbone file and a model folder to an edge model, and compares it with training."""
