"""Optional libraries, imported only when they are used."""

import importlib
from typing import Any


def optional(module: str, extra: str, use: str) -> Any:
    """Import `module`, or raise an ImportError that names the extra which installs it."""
    library = module.partition(".")[0]
    try:
        importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            # The library is installed, but lacks a dependency of its own.
            raise
        raise ImportError(
            f'{use} needs {library}, which is not installed: pip install "fdrl-layers[{extra}]"',
            name=library,
        ) from error
    return importlib.import_module(module)
