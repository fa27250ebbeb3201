"""A step over buffers that stay is the step as before, waits for no device, and fits a graph."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fer.training.batches import TrainingBatches
from fer.training.graph import WARM_UP, find_graph_obstacle, uses_graph
from fer.training.progress import Progress
from fer.training.ranks import Ranks
from fer.training.rates import make_capturable, rates_to_floats
from fer.training.run import build_run
from small_runs import (
    ALONE,
    assert_same,
    make_run,
    make_stopped_run,
    options_of,
    same_runs,
    start_run,
    take_steps,
    train_run,
    use_graph_buffers,
)

GPU = torch.device("cuda")
CUDA = Ranks(0, 1, GPU)
STRONG: dict[str, Any] = {"augment": "strong", "schedule": "onecycle", "ema": 0.9, "clip": 0.5}
STRONG |= {"weight_decay": 0.05, "label_smoothing": 0.1, "channels_last": True}
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"augment": "paper", "schedule": "steps"},
    "strong": STRONG,
    "gradient": {"center_update": "gradient", "reduction": "sum"},
    "linear": {"head": "linear", "ema": 0.9},
}
RECIPE = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
pytestmark = pytest.mark.usefixtures("small")


@RECIPE
def test_over_buffers_a_training_is_the_same(recipe: dict[str, Any], tmp_path: Path) -> None:
    train_run(tmp_path / "before", **recipe)
    train_run(tmp_path / "buffers", buffers=True, **recipe)
    same_runs(tmp_path / "before", tmp_path / "buffers")


@pytest.mark.parametrize("first", [False, True], ids=["first without", "first over buffers"])
def test_either_goes_on_with_what_the_other_kept(first: bool, tmp_path: Path) -> None:
    recipe = STRONG | {"epochs": 3}
    make_stopped_run(tmp_path / "run", 3, buffers=first, **recipe)
    again = start_run(tmp_path / "run", buffers=not first, **recipe)
    assert again.progress.steps == 3
    again.train(quiet=True)
    train_run(tmp_path / "whole", **recipe)
    same_runs(tmp_path / "whole", tmp_path / "run")


class Waiting(TorchDispatchMode):
    """Counts what is dispatched; with `refuse` it raises where a step would wait for a device."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "equal")

    def __init__(self, *, refuse: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refuse, self.count = refuse, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).split(".")[1]
        self.count += 1
        if self.refuse:
            if name.startswith(self.REFUSED):
                raise AssertionError(f"{func} waits for the device")
            chosen = args[1] if name.startswith("index") and isinstance(args[1], list) else ()
            if any(each is not None and each.dtype == torch.bool for each in chosen):
                raise AssertionError(f"{func} by a mask has a size that the host waits for")
            if name in ("_to_copy", "empty", "full", "arange"):
                device = (kwargs or {}).get("device", "that of its argument")
                assert device is not None, f"{func} makes a tensor wherever the default is"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip what the losses do only where values can be read without waiting: on the CPU."""
    monkeypatch.setattr("fdrl_layers.losses._targets.readable", lambda tensor: False)
    monkeypatch.setattr("fdrl_layers.losses.centers.readable", lambda tensor: False)
    monkeypatch.setattr("fdrl_layers.ops.eager.joint._readable", lambda tensor: False)
    monkeypatch.setattr("fdrl_layers.losses.centers.Centers.complete", lambda self: False)


@RECIPE
@pytest.mark.usefixtures("as_on_an_accelerator")
def test_what_a_graph_holds_waits_for_no_device(recipe: dict[str, Any]) -> None:
    run = use_graph_buffers(make_run(**recipe))
    take_steps(run, WARM_UP)
    assert run.graph is not None
    with Waiting(refuse=True) as mode:
        run.graph.run_captured()
    assert mode.count > 50


def test_the_mode_refuses_what_waits() -> None:
    for wait in (
        lambda: torch.ones(2).sum().item(),
        lambda: torch.ones(2).nonzero(),
        lambda: torch.ones(2)[torch.tensor([True, False])],
        lambda: torch.tensor(1.0),
        lambda: bool(torch.ones(1)),
    ):
        with Waiting(refuse=True), pytest.raises(AssertionError):
            wait()


@pytest.mark.parametrize("recipe", ["paper", "strong"])
def test_a_replay_costs_the_host_little(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = use_graph_buffers(make_run(**RECIPES[recipe]))
    take_steps(run, WARM_UP)
    # What a graph holds costs the host nothing.
    monkeypatch.setattr(run.graph, "run_captured", lambda: None)
    steps = run.take_steps(TrainingBatches(run.faces, run.options, 2, run.ranks))
    next(steps)
    with Waiting(refuse=False) as mode:
        next(steps)
    assert 2 <= mode.count <= 20


def test_what_cannot_be_a_graph_says_why() -> None:
    options = options_of(amp="bf16")
    assert find_graph_obstacle(options, CUDA, GPU) is None
    reasons = {
        "CUDA device": (options, ALONE, GPU),
        "processes": (options, Ranks(0, 2, GPU), GPU),
        "--cache device": (options, CUDA, ALONE.device),
        "--amp fp16": (options_of(amp="fp16"), CUDA, GPU),
        "--accumulate": (options_of(amp="bf16", accumulate=2), CUDA, GPU),
        "--compile": (options_of(amp="bf16", compile=True), CUDA, GPU),
        "--balance-warmup": (options_of(amp="bf16", balance_warmup=0.5), CUDA, GPU),
    }
    for reason, arguments in reasons.items():
        assert reason in str(find_graph_obstacle(*arguments))
        assert not uses_graph(*arguments)
        with pytest.raises(ValueError, match=f"--graph is not possible: .*{reason}"):
            uses_graph(replace(arguments[0], graph=True), *arguments[1:])
    assert uses_graph(options, CUDA, GPU)
    assert not uses_graph(options_of(amp="bf16", graph=False), CUDA, GPU)


def test_a_run_says_how_its_steps_run() -> None:
    run = make_run()
    assert "it needs a CUDA device" in run.describe_steps()
    assert use_graph_buffers(run).describe_steps() == "one CUDA graph each"


def test_rates_are_kept_as_numbers() -> None:
    layer = torch.nn.Linear(2, 2)
    adam = torch.optim.AdamW(layer.parameters(), 0.5)
    plain = adam.state_dict()
    make_capturable(adam, ALONE.device)
    adam.param_groups[0]["capturable"] = True
    assert isinstance(adam.param_groups[0]["lr"], Tensor)
    assert rates_to_floats(adam.state_dict()) == plain


def fifty_steps(recipe: dict[str, Any], *, graph: bool) -> tuple[Any, dict[str, Tensor]]:
    """Train on a GPU; return the sums of each epoch, and the weights."""
    changes = recipe | {"device": "cuda", "faces": 80, "amp": "off", "graph": graph, "epochs": 5}
    run = build_run(options_of(**changes), CUDA)
    assert (run.graph is not None) == graph
    sums = []
    for epoch in range(1, 6):
        run.progress = Progress()
        take_steps(run, 10, epoch)
        sums.append({name: float(value) for name, value in run.progress.sums.items()})
    return sums, {name: value.cpu() for name, value in run.model.state_dict().items()}


@pytest.mark.cuda
@RECIPE
def test_replayed_steps_are_eager_ones(recipe: dict[str, Any]) -> None:
    sums, weights = fifty_steps(recipe, graph=True)
    first, second = (fifty_steps(recipe, graph=False) for _ in range(2))
    if first[0] == second[0]:
        assert sums == first[0]
        assert_same(weights, first[1])
    for found, want in zip(sums, first[0], strict=True):
        assert found == pytest.approx(want, rel=1e-2)
