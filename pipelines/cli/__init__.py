"""The command line: verbs, flags, settings files, recipes and help."""
