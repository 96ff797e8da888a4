"""Labelled examples go in; training and test examples come out, with no group on both sides."""
