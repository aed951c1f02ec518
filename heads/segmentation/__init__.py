"""Segmentation heads: linear and UPerNet."""
