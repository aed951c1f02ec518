"""Data that the demos make: scenes, things, clips, rooms and figures, with their truth."""
