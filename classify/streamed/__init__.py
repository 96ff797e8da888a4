"""More embeddings than fit in memory enter, in batches, and a fitted head leaves."""
