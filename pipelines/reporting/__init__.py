"""Reports: runs side by side with the papers' results."""
