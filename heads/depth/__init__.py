"""Heads of monocular depth."""
