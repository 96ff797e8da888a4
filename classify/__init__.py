"""A feature store goes in; a trained head, its scores and its predictions come out."""
