"""Answers and true labels enter, scores with their intervals leave."""
