"""PyTorch networks, and their weights. PyTorch is imported here."""
