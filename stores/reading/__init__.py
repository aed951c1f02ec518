"""The reader of a committed store: rows, right or refused."""
