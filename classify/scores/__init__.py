"""Labels and predictions go in; scores with their intervals and comparisons come out."""
