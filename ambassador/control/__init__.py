"""Floor 7: starting, stopping and watching a running proxy: admin pages, reload, drain."""
