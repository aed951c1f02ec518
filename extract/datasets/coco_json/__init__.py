"""Annotation files in COCO's format: ids, byte ranges, annotations as instances."""
