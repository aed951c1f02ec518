"""Outputs of the parts of a head, for analyses of trained heads."""
