"""Recordings: bytes in, one window of mono samples, float32 `[samples]`, or a reason code out."""
