"""Networks become backbone files; a backbone and a head become an edge model."""
