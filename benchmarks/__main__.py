"""Measure the cost of the head with one of these commands.

    python -m benchmarks operators [--device cuda] [--dtype bfloat16] [--quick]
    python -m benchmarks whole-step [--device cuda] [--dtype bfloat16] [--graph]
    python -m benchmarks throughput [--device cuda] [--dtype bfloat16] [--channels-last]
    python -m benchmarks kernels [--smallest]
    python -m benchmarks gpu [--out DIR] [--only tests,operators]
    python -m benchmarks real-faces --data DIR
    python -m benchmarks.studies

Each command describes its options with --help.
"""

import importlib
import sys
from collections.abc import Sequence

NAMES = ("operators", "whole-step", "throughput", "kernels", "gpu", "real-faces")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named by the first argument with the remaining arguments."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name not in NAMES:
        print(__doc__, file=sys.stderr)
        return 2
    # Import only this command: another may require packages that are missing, such as torchvision.
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    return int(module.main(rest) or 0)


if __name__ == "__main__":
    sys.exit(main())
