"""Video heads: linear, temporal and global blocks over clips."""
