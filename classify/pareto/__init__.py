"""Feature stores and backbones go in; a table and a plot of accuracy against cost come out."""
