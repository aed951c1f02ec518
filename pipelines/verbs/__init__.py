"""The verbs: one module each, with its `run`."""
