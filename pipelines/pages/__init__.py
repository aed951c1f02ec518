"""HTML pages of stores and runs: one file each, readable without a network."""
