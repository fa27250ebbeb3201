"""Before a version is timed it must agree with the loop in float64: values and every gradient."""

import torch
from torch import Tensor

from benchmarks.registry import VERSIONS, Mode, Sizes, Step, build
from comparing import assert_close

OUTPUTS = ("logits", "embedding", "latents", "intra_weights")


def disagreement(step: Step, expected: dict[str, Tensor], dtype: torch.dtype) -> str | None:
    """Say where a step's results are off by more than rounding, or None."""
    try:
        for name, value in results(step).items():
            want = expected[name]
            # In a gradient much cancels: it is judged by its largest element.
            assert_close(name, value, want, dtype, scale=float(want.abs().max()))
    except AssertionError as error:
        return str(error)
    return None


def results(step: Step) -> dict[str, Tensor]:
    """Run a step, and return the head's outputs and, in training, all gradients, stacked."""
    assert step.model is not None
    assert step.forward is not None
    assert step.input is not None
    total = step.run()
    with torch.no_grad():
        output = step.forward(step.input)
    found = {name: getattr(output, name).detach() for name in OUTPUTS}
    if step.target is None:
        found["run"] = total.detach()
        return found
    assert step.input.grad is not None
    gradients = {name: p.grad for name, p in step.model.named_parameters() if p.grad is not None}
    for name, value in _stacked(gradients).items():
        found[f"d {name}"] = value
    return found | {"d input": step.input.grad}


def _stacked(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the gradients as a head does, and stack those of single branches."""
    rows: dict[str, list[Tensor]] = {}
    for name, gradient in gradients.items():
        *path, kind = name.removeprefix("_orig_mod.").split(".")
        layer = next(part for part in path if part in LAYERS)
        rows.setdefault(f"{layer}.{kind}", []).append(gradient)
    return {key: row[0] if len(row) == 1 else torch.stack(row) for key, row in rows.items()}


LAYERS = ("decomposition", "intra", "inter", "classifier")


def expected_results(sizes: Sizes, mode: Mode) -> dict[str, Tensor]:
    """The loop's results, in float64 on the CPU."""
    loop = next(version for version in VERSIONS if version.name == "loop")
    return results(build(loop, sizes, mode, "cpu", torch.float64))
