"""PyTorch networks and their weights. Imports PyTorch when used."""
