"""Run folders: settings, metrics, costs and checkpoints."""
