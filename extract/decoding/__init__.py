"""Decoding of images and videos, in processes of their own."""
