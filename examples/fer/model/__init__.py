"""Backbone and head, their losses, and both back from a file."""
