"""Boxes: anchors, matching, coding, NMS, RoIAlign and masks of regions."""
