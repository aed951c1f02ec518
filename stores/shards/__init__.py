"""Shard files and their receipts: the unit that one writer finishes."""
