"""A feature store goes in; labelled embeddings come out, in memory or in batches from disk."""
