"""Backbones of other libraries: how they are built, stripped, tried and pooled."""
