"""A path or an address in, a table of examples out: id, path, label, split, group.

One module for each kind of source, and `reading`, which fetches the bytes of an example.
"""
