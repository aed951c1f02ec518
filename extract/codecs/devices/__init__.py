"""Device halves of codecs: one module each, of the same name as its module in stores/codecs."""
