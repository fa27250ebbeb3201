"""Hand-written forward and backward passes, for training without a compiler."""
