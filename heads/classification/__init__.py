"""Heads of classification: linear probes on pooled features."""
