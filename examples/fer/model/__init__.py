"""Backbone, head and losses, and loading them from files."""
