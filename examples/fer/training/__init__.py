"""Training: batches, steps, stopping and resuming."""
