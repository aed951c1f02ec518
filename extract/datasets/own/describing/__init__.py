"""Looks at a folder of own data and writes a description of it to begin from."""
