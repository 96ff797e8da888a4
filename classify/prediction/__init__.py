"""A head or an edge model and new examples go in; a table of predictions comes out."""
