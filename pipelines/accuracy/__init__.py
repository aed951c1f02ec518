"""Accuracy of classification: records by their most likely classes, and figures of them."""
