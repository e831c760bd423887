"""Floor 0: the words that every floor shares. Standard library and msgspec only.

msgspec, because the values of the hot path are made of it: heads in `model`, and in `record` the encoding of an
exchange is its line in the access log.
"""
