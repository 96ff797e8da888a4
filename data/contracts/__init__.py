"""The files that rooms hand to each other, each read and written here and nowhere else.

Bytes enter, checked objects leave; every format has a version and a rule for bumping it.
"""
