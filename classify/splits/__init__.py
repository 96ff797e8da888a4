"""Labelled examples enter, training and test examples leave, with no group on both sides."""
