"""Photographs: bytes enter, uint8 `[height, width, 3]` in RGB leaves, or a reason why not."""
