"""Checkpoints by where they come from: names of other libraries turned into timm's."""
