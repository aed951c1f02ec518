"""Optimisation of heads: optimizer, its groups of parameters, and the learning rate."""
