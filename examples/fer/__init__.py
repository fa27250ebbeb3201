"""Shared code of the facial expression examples: databases, models, training and reports."""
