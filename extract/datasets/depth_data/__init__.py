"""Depth data: pairs of an image and a depth map, their lists and files."""
