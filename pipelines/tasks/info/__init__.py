"""Scores of each task: names, units and order, by the name of the task's file; loads no torch."""
