"""Detection heads: Mask R-CNN, Cascade and HTC."""
