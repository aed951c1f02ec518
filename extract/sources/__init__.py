"""Sources of records: files in folders and members of tars."""
