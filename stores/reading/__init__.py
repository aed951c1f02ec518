"""The reader of a committed store: returns the bytes that were written, or raises."""
