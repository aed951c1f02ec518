"""The extraction: batches, backbone, codec and writer at once."""
