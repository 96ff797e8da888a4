"""Measures edge models: size, latency, memory, accuracy and agreement."""
