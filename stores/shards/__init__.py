"""Shard files and their receipts: one shard is one unit of work."""
