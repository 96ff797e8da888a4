"""Shards of examples enter, what workers make of them leaves, whatever happens to the workers.

One pool serves extraction and prediction. A worker reads, decodes and batches the examples of a
shard itself; no bytes of an example cross Ray's object store.
"""
