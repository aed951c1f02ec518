"""Pictures of predictions, label maps, clips and curves."""
