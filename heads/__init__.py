"""Heads by name: one architecture a file; its presets stand in it as HEADS. Imports torch, torchvision.ops, numpy, scipy and stores.pyramid only."""
