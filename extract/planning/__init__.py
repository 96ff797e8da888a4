"""A source and a store in, a plan out: which parts stay or are rewritten, what is embedded.

`plan` has all examples in memory; `by_file` has the files of a source in very many files.
"""
