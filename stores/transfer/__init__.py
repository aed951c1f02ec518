"""Copies of complete stores: whole between a disk and a URL, and parts of one as a store of their own."""
