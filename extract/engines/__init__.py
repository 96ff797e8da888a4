"""What runs a backbone: images enter, embeddings leave, whichever engine is the fastest."""
