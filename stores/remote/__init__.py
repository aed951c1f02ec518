"""Stores in object storage and on web servers, through obstore."""
