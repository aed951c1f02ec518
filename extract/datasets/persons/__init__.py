"""Data sets of persons and their keypoints, in the format of COCO person_keypoints files."""
