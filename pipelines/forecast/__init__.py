"""Forecasts of an extraction: bytes, time, and whether caching pays."""
