"""A file of many examples in a format of its own in, a table of examples and their bytes out.

`cifar` and `idx` are arrays of pixels, with gzip around them or not; `zipped` are photographs in a
zip archive. `contents` reads an example by its path, which the other modules write.
"""
