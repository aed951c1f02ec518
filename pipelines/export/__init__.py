"""Trained heads as files of their own, to share."""
