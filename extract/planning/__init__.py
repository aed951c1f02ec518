"""Plans of an extraction: geometry, bins and sizes."""
