"""Predictions of a model, their metrics, and summaries."""
