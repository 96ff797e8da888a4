"""A finished head goes in; near-duplicates, probable label errors and a learning curve come out."""
