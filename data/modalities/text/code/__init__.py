"""Programs that classify texts with an edge model; they do not import headstart."""
