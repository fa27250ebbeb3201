"""Backbones of other libraries: building, removing the classifier, dry runs and pooling."""
