"""Folders and files on this machine, S3 and Google: names enter, bytes leave, and back."""
