"""Runs commands as jobs on a Ray cluster."""
