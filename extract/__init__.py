"""A source and a backbone in, a feature store out; the work is done by workers, here or on Ray."""
