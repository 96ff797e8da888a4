"""A feature store enters, labelled embeddings leave: in memory, or in batches from the disk."""
