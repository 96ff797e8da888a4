"""Texts: bytes in, the tokens of a sentence encoder (int64 `[tokens]`) or a reason code out."""
