"""Costs that are counted: parameters and multiply-adds of heads."""
