"""Training of heads: module, loop, schedules and callbacks."""
