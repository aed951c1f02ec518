"""Checks of a store: verification, and how far an extraction is."""
