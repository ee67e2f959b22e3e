"""OpenFlorence: the open Florence-2."""
