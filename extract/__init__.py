"""A source and a backbone enter, a feature store leaves; the work is done by Ray's workers."""
