"""Writes a network as a backbone file, and compares it with the original network."""
