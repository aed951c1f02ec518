"""Stores under a folder: which exist, and which one a command means."""
