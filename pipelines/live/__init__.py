"""The live backbone: predictions, and levels recomputed from pixels."""
