"""A head or an edge model and something new enter, a table of answers leaves."""
