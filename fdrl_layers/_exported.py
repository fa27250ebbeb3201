"""Registration of dataclasses as outputs of exported programs."""

import warnings

import torch


def register(record: type) -> None:
    """Register a dataclass as an output of exported programs, under a name for serialization."""
    with warnings.catch_warnings():
        # torch 2.6 warns about a function that it calls here itself.
        warnings.simplefilter("ignore", FutureWarning)
        torch.export.register_dataclass(
            record, serialized_type_name=f"fdrl_layers.{record.__name__}"
        )
