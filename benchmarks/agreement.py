"""Compare the values and gradients of a version with the tests' loop in float64 before timing it.

Both use parameters and features rounded to the dtype under test. A ReLU that is active for
unrounded inputs may be inactive for rounded ones, and then the results would not be comparable.
"""

import copy

import torch
from torch import Tensor

import strategies
from benchmarks.registry import Lambdas, Mode, Sizes, Step, Version, build_step, make_batch
from comparing import assert_close
from fdrl_layers import FDRLHead
from layer_cases import Regime
from loop_head import LoopHead
from loop_loss import LoopLoss

OUTPUTS = ("logits", "embedding", "latents", "intra_weights")
LAYERS = ("decomposition", "intra", "inter", "classifier")
DELTA = 0.25
"""Not 0.5, because then an exchange of the weights delta and 1 - delta would not be detected."""
PARAMETER_FACTORS = {"reconstruction.intra.weight": 4.0, "classifier.bias": 8.0}
"""Factors of parameters, chosen such that each gradient and each bias matters."""
REGIMES: dict[Regime, Lambdas] = {"small": (0.5, 1.0, 20.0), "default": (0.5, 1.0, 0.05)}
"""Regimes of Intra-W: about 1/9, where Inter-W depends on all messages; D/2, where it saturates.

The values are the weights of the losses, chosen such that the gradient of each loss matters.
"""


def find_disagreement(
    version: Version, sizes: Sizes, mode: Mode, device: str, dtype: torch.dtype
) -> str | None:
    """Return where a version's results differ by more than rounding, or None if they agree."""
    # The compiled code does not depend on the parameters, so one regime is enough.
    for regime, lambdas in list(REGIMES.items())[: 1 if version.compiled else None]:
        head = make_rounded_head(sizes, dtype, regime)
        expected = compute_expected_results(head, sizes, mode, dtype, lambdas)
        step = build_step(version, sizes, mode, device, dtype, head=head, lambdas=lambdas)
        try:
            for name, value in collect_results(step).items():
                want = expected[name]
                # Terms of a gradient cancel, so its tolerance is relative to its largest element.
                assert_close(name, value, want, dtype, scale=float(want.abs().max()))
        except AssertionError as error:
            return str(error)
    return None


def make_rounded_head(sizes: Sizes, dtype: torch.dtype, regime: Regime) -> FDRLHead:
    """Return a head whose parameters are exactly representable in `dtype`."""
    head = FDRLHead(sizes.P, sizes.K, latent_dim=sizes.D, num_latents=sizes.M, delta=DELTA)
    drawn = strategies.parameters_for(strategies.Sizes(*sizes), 3, regime=regime)
    for name, factor in PARAMETER_FACTORS.items():
        drawn[name] *= factor
    if dtype.itemsize < 4:
        distance = _set_decisive_biases(drawn, make_batch(sizes, "cpu", dtype)[0].double())
        if regime == "small":
            for name in ("reconstruction.inter.weight", "reconstruction.inter.bias"):
                drawn[name] /= distance
    head.load_state_dict({name: value.to(dtype) for name, value in drawn.items()})
    return head


def _set_decisive_biases(drawn: dict[str, Tensor], input: Tensor) -> float:
    """Set the biases of both ReLUs such that each unit is active, or inactive, for a whole batch.

    Each version rounds intermediate results in different places. A sum near 0 would activate the
    ReLU of one version and not that of another, and both gradients would be correct.

    Returns the mean distance between messages.
    """

    def project(of: Tensor, layer: str) -> Tensor:
        found: Tensor = torch.einsum("nmp,mdp->nmd", of, drawn[f"{layer}.weight"])
        return found

    def activate(layer: str, sums: Tensor) -> Tensor:
        bias = drawn[f"{layer}.bias"]
        bias.copy_(bias.sign() * (sums.abs().amax(0) + sums.abs().mean()))
        opened: Tensor = (sums + bias).relu()
        return opened

    wide = input[:, None].expand(-1, len(drawn["decomposition.bias"]), -1)
    latents = activate("decomposition", project(wide, "decomposition"))
    intra = "reconstruction.intra"
    gates = (project(latents, intra) + drawn[f"{intra}.bias"]).sigmoid()
    features = gates.sum(2, keepdim=True) * latents
    messages = activate("reconstruction.inter", project(features, "reconstruction.inter"))
    return float(torch.cdist(messages, messages).mean())


def compute_expected_results(
    head: FDRLHead, sizes: Sizes, mode: Mode, dtype: torch.dtype, lambdas: Lambdas
) -> dict[str, Tensor]:
    """Return the results of the tests' loop in float64 for features rounded to `dtype`."""
    loop = LoopHead(sizes.P, sizes.K, latent_dim=sizes.D, num_latents=sizes.M, delta=DELTA).double()
    loop.load_stacked(copy.deepcopy(head).double())
    loss = LoopLoss(sizes.K, num_latents=sizes.M, latent_dim=sizes.D, weights=lambdas)
    input, target = make_batch(sizes, "cpu", dtype)
    input = input.double().requires_grad_(mode == "training")

    def run() -> Tensor:
        output = loop(input)
        if mode == "inference":
            logits: Tensor = output.logits.detach()
            return logits
        total: Tensor = loss(output, target).total
        total.backward()
        return total

    return collect_results(Step(run, loop, input, target if mode == "training" else None, loop))


def collect_results(step: Step) -> dict[str, Tensor]:
    """Run a step and return the head's outputs and, in training, all gradients, stacked."""
    assert step.model is not None
    assert step.forward is not None
    assert step.input is not None
    ran = step.run()
    with torch.no_grad():
        output = step.forward(step.input)
    found = {name: getattr(output, name).detach() for name in OUTPUTS}
    found["run"] = ran.detach()
    if step.target is None:
        return found
    assert step.input.grad is not None
    gradients = {name: p.grad for name, p in step.model.named_parameters() if p.grad is not None}
    for name, value in _stack_gradients(gradients).items():
        found[f"d {name}"] = value
    return found | {"d input": step.input.grad}


def _stack_gradients(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the gradients to the parameter names of a head and stack those of single branches."""
    rows: dict[str, list[Tensor]] = {}
    for name, gradient in gradients.items():
        *path, kind = name.removeprefix("_orig_mod.").split(".")
        layer = next(part for part in path if part in LAYERS)
        rows.setdefault(f"{layer}.{kind}", []).append(gradient)
    return {key: row[0] if len(row) == 1 else torch.stack(row) for key, row in rows.items()}
