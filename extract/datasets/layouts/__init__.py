"""File layouts of data sets: annotation files and lists, read into records."""
