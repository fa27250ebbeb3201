"""The definitions in plain torch, for compilers, exporters, torch.func and second derivatives."""
