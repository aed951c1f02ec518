"""Heads of pose estimation: heatmaps of keypoints from the last map of a backbone."""
