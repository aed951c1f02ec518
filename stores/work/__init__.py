"""The work folder of a store, no part of it: claims of its writers and counts of their deaths."""
