"""Floor 8: the commands, one file each, imported when called."""
