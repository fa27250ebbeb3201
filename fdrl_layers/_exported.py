"""Records that an exported program may give."""

import warnings

import torch


def register(record: type) -> None:
    """Let a dataclass be the output of an exported program, under a name that files may carry."""
    with warnings.catch_warnings():
        # torch 2.6 warns of what it calls here itself.
        warnings.simplefilter("ignore", FutureWarning)
        torch.export.register_dataclass(
            record, serialized_type_name=f"fdrl_layers.{record.__name__}"
        )
