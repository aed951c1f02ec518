"""Metrics: segmentation scores and COCO AP."""
