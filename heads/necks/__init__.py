"""Necks: FPN, residual FPN and BiFPN over a pyramid."""
