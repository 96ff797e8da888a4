"""Ready programs that classify recordings with an edge model; they import nothing of ours."""
