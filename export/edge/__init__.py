"""A backbone file and a model folder enter, an edge model leaves, held against training's path."""
