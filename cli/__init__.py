"""The command line: `featcache` and `adapters`."""
