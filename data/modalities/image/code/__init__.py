"""Ready programs that classify photographs with an edge model; they import nothing of ours."""
