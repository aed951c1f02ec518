"""Views of persons: crops around their boxes, by affine maps that replay exactly."""
