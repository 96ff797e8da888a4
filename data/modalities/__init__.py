"""The kinds of examples: each turns bytes into a backbone's input array."""
