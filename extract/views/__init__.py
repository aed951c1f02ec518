"""Views: seeded augmentation that replays exactly on pixels and targets."""
