"""Batches of more embeddings than fit in memory go in; a fitted head comes out."""
