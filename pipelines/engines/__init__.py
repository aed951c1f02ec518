"""Engines: how several processes and machines share the work of a verb."""
