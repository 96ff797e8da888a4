"""A finished head enters; leaks, probable label errors and the use of more labels leave."""
