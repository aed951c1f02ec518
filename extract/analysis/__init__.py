"""Analyses of frozen backbones: attention and kernels of their blocks, and the outputs of every block."""
