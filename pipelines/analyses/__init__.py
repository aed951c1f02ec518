"""Analyses of stores, runs and backbones: similarity, attention, kernels, feature pictures, codec error."""
