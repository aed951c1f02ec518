"""Own data: layouts that a description file explains."""
