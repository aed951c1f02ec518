"""Centred kernel alignment of levels, blocks and parts of a head."""
