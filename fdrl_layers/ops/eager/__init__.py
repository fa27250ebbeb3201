"""Forward and backward passes written out by hand, for training without a compiler."""
