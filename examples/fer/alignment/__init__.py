"""Faces cut out of pictures and turned upright."""
