"""Probes: classification of features without training a head, and its figures."""
