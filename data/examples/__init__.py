"""A path or an address enters, a table of examples leaves: id, path, label, split, group.

A kind of source each, and `reading`, which fetches the bytes of an example.
"""
