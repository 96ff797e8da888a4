"""What runs a backbone: inputs in, embeddings out, with the fastest engine."""
