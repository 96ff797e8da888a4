"""The files that rooms hand to each other, each read and written here and nowhere else.

Bytes in, checked objects out; every format has a version and a rule for bumping it.
"""
