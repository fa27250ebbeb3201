"""Triton kernels, imported only when they are chosen."""
