"""Data sets by name: one file each, found by its name."""
