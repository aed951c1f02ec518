"""Codecs of features: numpy in, bytes out."""
