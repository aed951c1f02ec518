"""Pages of stores and runs over HTTP, read-only."""
