"""Writes a static page that classifies photographs with an edge model."""
