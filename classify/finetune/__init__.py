"""Photographs, a frozen model and its network in, a tuned network and a comparison out."""
