"""Mask2Former heads: pixel decoder, masked decoder, matching and losses."""
