"""Feature stores and their backbones enter, a table and a plot of accuracy against cost leave."""
