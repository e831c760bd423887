"""Floor 0: the words that every floor shares. Standard library (and msgspec in `record`) only."""
