"""Folders and files on this machine, S3 and Google: reading and writing by name."""
