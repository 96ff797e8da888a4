"""Photographs: bytes in, uint8 `[height, width, 3]` in RGB or a reason code out."""
