"""From a pile of labelled files to a classifier that runs anywhere.

The rooms are `headstart.data`, `headstart.extract`, `headstart.classify`, `headstart.export` and
`headstart.cluster`; in a clone they are links to the folders of these names.
"""
