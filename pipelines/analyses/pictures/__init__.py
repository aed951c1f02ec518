"""Pictures of analyses."""
