"""Frozen backbones: registry, weights, precision, and the network that runs."""
