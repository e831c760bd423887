"""Floor 3: the configuration file: schema, loading, and what it means."""
