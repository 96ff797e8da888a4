"""What runs on the workers: examples in batches in, trained weights out."""
