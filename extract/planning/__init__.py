"""A source and a store in, a plan out: which parts stay or are rewritten, what is embedded."""
