"""The extraction: loading, backbone, codec and writer, all concurrently."""
