"""Probes: classification of stored features without training a head."""
