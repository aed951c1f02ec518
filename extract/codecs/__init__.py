"""Codecs on the device: the bytes of `stores.codecs`, made by torch."""
