"""Count the kernels that Triton launches, on a GPU or in its interpreter."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from triton.runtime import interpreter, jit


@contextmanager
def counted_launches() -> Iterator[list[str]]:
    """Collect the names of the kernels launched within the context, in their order."""
    names: list[str] = []
    classes: list[Any] = [jit.JITFunction, interpreter.InterpretedFunction]
    runs = [each.run for each in classes]

    def recording(run: Any) -> Any:
        def recorded(self: Any, *arguments: Any, **options: Any) -> Any:
            names.append(self.fn.__name__)
            return run(self, *arguments, **options)

        return recorded

    for each, run in zip(classes, runs, strict=True):
        each.run = recording(run)
    try:
        yield names
    finally:
        for each, run in zip(classes, runs, strict=True):
            each.run = run
