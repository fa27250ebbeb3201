"""A training: batches, steps, and what stops and resumes it."""
