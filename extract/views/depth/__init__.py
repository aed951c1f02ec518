"""Views of depth data: crops and windows of images at their own size."""
