"""What the facial expression examples share: databases, models, training and reports."""
