"""Several runs in one command: heads side by side on one stream, and seeds one after another."""
