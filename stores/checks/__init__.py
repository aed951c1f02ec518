"""Checks of a store: verification, progress of an extraction, orphans."""
