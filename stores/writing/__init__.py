"""The writer of a store: shards, then the commit that completes it."""
