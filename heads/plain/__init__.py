"""Plain ViTs under heads: pyramids made of maps that are all of one stride."""
