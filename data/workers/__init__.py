"""Shards of examples in, the workers' results out, even if workers die or stall.

One pool serves extraction and prediction; a small extraction needs no Ray, see `processes`. A
worker reads, decodes and batches the examples of a shard itself; no bytes of an example cross Ray's
object store.
"""
