"""Networks enter and backbone files leave; a backbone and a head enter and an edge model leaves."""
