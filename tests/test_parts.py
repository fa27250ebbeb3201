"""Parts that are as made are computed at once; changed ones are called, and count."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize, prune

from comparing import assert_close
from fdrl_layers import (
    BalanceLoss,
    CompactnessLoss,
    FDRLHead,
    FDRLLoss,
    FDRLOutput,
    FeatureDecomposition,
    InterRelation,
    IntraRelation,
)
from strategies import normal

P, M, D, K = 16, 3, 8, 5
PARTS = ("decomposition", "reconstruction", "reconstruction.intra", "reconstruction.inter")
Change = Callable[[nn.Module, str], None]


def new_head(**options: Any) -> FDRLHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given: dict[str, Any] = {"reduction": "mean", "dtype": torch.float64} | options
        return FDRLHead(P, K, latent_dim=D, num_latents=M, **given)


def put(root: nn.Module, name: str, part: Any) -> None:
    """Set a submodule by its dotted name."""
    *path, last = name.split(".")
    setattr(root.get_submodule(".".join(path)), last, part)


def composed(head: FDRLHead, input: Tensor, part: str = "") -> FDRLOutput:
    """Call the parts one after another, as equations 1 to 12 say; a changed `part` as a whole."""
    latents = head.decomposition(input)
    reconstruction: Any = head.reconstruction
    if part != "reconstruction":
        features, intra_weights = reconstruction.intra(latents)
        aware, inter_weights = reconstruction.inter(features, need_weights=True)
        delta = reconstruction.delta
        embedding = (delta * features + (1 - delta) * aware).sum(-2)
    else:
        embedding, intra_weights, inter_weights = reconstruction(latents)
    assert head.classifier is not None
    logits = head.classifier(embedding)
    return FDRLOutput(logits, embedding, latents, intra_weights, inter_weights)


def subclass(root: nn.Module, name: str) -> None:
    part = root.get_submodule(name)
    kind: Any = type(part)

    class Doubled(kind):  # type: ignore[misc]
        def forward(self, *arguments: Any, **options: Any) -> Any:
            return double(super().forward(*arguments, **options))

    part.__class__ = Doubled


def double(found: Any) -> Any:
    """Twice the first of what a part gives."""
    return (2 * found[0], *found[1:]) if isinstance(found, tuple) else 2 * found


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return double(self.inner(*arguments, **options))


def wrap(root: nn.Module, name: str) -> None:
    put(root, name, Wrapped(root.get_submodule(name)))


def replace_forward(root: nn.Module, name: str) -> None:
    part: Any = root.get_submodule(name)
    before = part.forward
    part.forward = lambda *arguments, **options: double(before(*arguments, **options))


def forward_hook(root: nn.Module, name: str) -> None:
    root.get_submodule(name).register_forward_hook(lambda _, __, found: double(found))


def pre_hook(root: nn.Module, name: str) -> None:
    root.get_submodule(name).register_forward_pre_hook(lambda _, given: (2 * given[0],))


def pre_hook_with_kwargs(root: nn.Module, name: str) -> None:
    def hook(_: nn.Module, given: Any, options: Any) -> Any:
        return (2 * given[0],), options

    root.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)


def pruned(root: nn.Module, name: str) -> None:
    part = root.get_submodule(name)
    for each in part.modules():
        if "weight" in each._parameters:
            prune.l1_unstructured(each, "weight", amount=0.5)


class Negative(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -weight


def parametrized(root: nn.Module, name: str) -> None:
    part = root.get_submodule(name)
    for each in list(part.modules()):
        if "weight" in each._parameters:
            parametrize.register_parametrization(each, "weight", Negative())


def spectral(root: nn.Module, name: str) -> None:
    part = root.get_submodule(name)
    for each in list(part.modules()):
        if "weight" in each._parameters:
            parametrizations.spectral_norm(each)


CALLED: dict[str, Change] = {
    "subclass": subclass,
    "wrapped": wrap,
    "own forward": replace_forward,
    "forward hook": forward_hook,
    "forward pre-hook": pre_hook,
    "forward pre-hook with options": pre_hook_with_kwargs,
    "pruned": pruned,
}
FUSED: dict[str, Change] = {"parametrized": parametrized, "spectral norm": spectral}
PART = pytest.mark.parametrize("part", PARTS)


def assert_same_output(found: FDRLOutput, want: FDRLOutput) -> None:
    for name, value in vars(want).items():
        assert_close(name, vars(found)[name].detach(), value.detach(), torch.float64)


@PART
@pytest.mark.parametrize("change", CALLED.values(), ids=CALLED)
def test_a_changed_part_counts(part: str, change: Change) -> None:
    input, head = normal(4, P, seed=1), new_head()
    plain = head(input)
    change(head, part)
    found = head(input)
    assert head.backend_choice(input).name == "torch"
    assert f"`{part}" in head.backend_choice(input).reason
    assert_same_output(found, composed(head, input, part))
    assert not torch.allclose(found.logits, plain.logits)
    head.backend = "triton"
    with pytest.raises(RuntimeError, match=f"cannot run FDRLHead: `{part}"):
        head(input)


@PART
@pytest.mark.parametrize("change", FUSED.values(), ids=FUSED)
def test_a_parametrized_part_is_fused(part: str, change: Change) -> None:
    input, head = normal(4, P, seed=1), new_head()
    plain = head(input)
    change(head, part)
    head.eval()
    assert head._reason_to_call_parts() is None
    found = head(input)
    assert_same_output(found, composed(head, input))
    assert not torch.allclose(found.logits, plain.logits)


@PART
def test_a_hook_runs_once_and_is_gone_when_removed(part: str) -> None:
    input, head = normal(4, P, seed=1), new_head()
    seen: list[Any] = []
    handle = head.get_submodule(part).register_forward_hook(lambda *found: seen.append(found))
    with_hook = head(input)
    assert len(seen) == 1
    handle.remove()
    assert head._reason_to_call_parts() is None
    assert_same_output(head(input), with_hook)
    assert len(seen) == 1


@PART
@pytest.mark.parametrize("hook", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_backward_hook_runs(part: str, hook: str) -> None:
    input, head = normal(4, P, seed=1).requires_grad_(), new_head()
    seen: list[Any] = []
    getattr(head.get_submodule(part), hook)(lambda *found: seen.append(found))
    head(input).logits.sum().backward()
    assert len(seen) == 1


@pytest.fixture
def global_hook() -> Iterator[list[nn.Module]]:
    seen: list[nn.Module] = []
    handle = torch_module.register_module_forward_hook(lambda part, *_: seen.append(part))
    yield seen
    handle.remove()


def test_a_global_hook_sees_every_part(global_hook: list[nn.Module]) -> None:
    head, criterion = new_head(), FDRLLoss(K, latent_dim=D, num_latents=M, dtype=torch.float64)
    assert "all modules have a forward hook" in head.backend_choice(normal(4, P, seed=1)).reason
    criterion(head(normal(4, P, seed=1)), torch.tensor([0, 1, 2, 3]))
    kinds = {type(each) for each in global_hook}
    assert kinds >= {FeatureDecomposition, IntraRelation, InterRelation, nn.Linear, BalanceLoss}


def test_another_forward_in_the_class_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    input, head = normal(4, P, seed=1), new_head()
    before = IntraRelation.forward
    monkeypatch.setattr(IntraRelation, "forward", lambda *given: double(before(*given)))
    assert "another `forward`" in str(head._reason_to_call_parts())
    assert_same_output(head(input), composed(head, input))


CLASSIFIERS: dict[str, Change] = {
    **CALLED,
    "own class": lambda root, name: put(root, name, nn.Sequential(root.get_submodule(name))),
}


@pytest.mark.parametrize("change", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_a_changed_classifier_is_called_after_the_rest(change: Change) -> None:
    input, head = normal(4, P, seed=1), new_head()
    change(head, "classifier")
    assert head._reason_to_call_parts() is None
    assert_same_output(head(input), composed(head, input))


class BatchNormed(nn.Module):
    """Equation 1 with a batch norm of each latent."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(P, M * D, dtype=torch.float64)
        self.norm = nn.BatchNorm1d(M * D, dtype=torch.float64)

    def forward(self, input: Tensor) -> Tensor:
        found: Tensor = self.norm(self.linear(input)).relu().unflatten(-1, (M, D))
        return found


class Attention(nn.Module):
    """Another reconstruction altogether, without Inter-W."""

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, None]:
        weights = latents.mean(-1).softmax(-1)
        return (weights.unsqueeze(-1) * latents).sum(-2), weights, None


def test_other_modules_may_stand_for_the_parts() -> None:
    head = new_head()
    head.decomposition = BatchNormed()  # type: ignore[assignment]
    head.reconstruction = Attention()  # type: ignore[assignment]
    output = head(normal(4, P, seed=1))
    assert output.latents.shape == (4, M, D)
    assert output.inter_weights is None
    output.logits.sum().backward()
    assert head.get_parameter("decomposition.linear.weight").grad is not None
    head.reset_parameters()
    for copied in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(
            copied.eval()(normal(2, P, seed=1)).logits, head.eval()(normal(2, P, seed=1)).logits
        )
    with pytest.raises(ValueError, match="`decomposition` must be a FeatureDecomposition"):
        head._hub_options()


class Gives(nn.Module):
    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.found


@pytest.mark.parametrize(
    ("part", "found", "error", "match"),
    [
        ("decomposition", torch.ones(M * D), ValueError, r"decomposition\(input\)"),
        ("decomposition", [1], TypeError, r"decomposition\(input\)"),
        ("reconstruction", torch.ones(4, D), TypeError, "must be a tuple"),
        (
            "reconstruction",
            (torch.ones(4, D), torch.ones(4, 2), None),
            ValueError,
            "Intra-W|\\[1\\]",
        ),
        ("reconstruction.intra", (torch.ones(4, 2, D), torch.ones(4, M)), ValueError, "intra"),
        ("reconstruction.inter", (torch.ones(4, M, 2), None), ValueError, "inter"),
    ],
)
def test_rejects_what_a_part_must_not_give(
    part: str, found: Any, error: type[Exception], match: str
) -> None:
    head = new_head(dtype=torch.float32)
    put(head, part, Gives(found))
    with pytest.raises(error, match=match):
        head(torch.randn(4, P))


@pytest.mark.parametrize("left_out", ["intra", "inter"])
def test_a_relation_may_be_left_out_beside_a_changed_one(left_out: str) -> None:
    other = "inter" if left_out == "intra" else "intra"
    input, head = normal(4, P, seed=1), new_head(**{left_out: False})
    plain = head(input)
    seen: list[Any] = []
    head.get_submodule(f"reconstruction.{other}").register_forward_hook(lambda *x: seen.append(x))
    called = head(input)
    assert len(seen) == 1
    for name, value in vars(plain).items():
        if value is not None:
            assert_close(name, vars(called)[name].detach(), value.detach(), torch.float64)


@pytest.mark.parametrize("changed", ["intra", "inter"])
def test_messages_in_equation_11_beside_a_changed_relation(changed: str) -> None:
    input, head = normal(4, P, seed=1), new_head(self_feature="message")
    plain = head(input)
    part = head.get_submodule(f"reconstruction.{changed}")
    handle = part.register_forward_hook(lambda *_: None)
    assert_same_output(head(input), plain)
    handle.remove()
    wrap(head, "reconstruction.inter")
    with pytest.raises(ValueError, match='`self_feature` must be "intra"'):
        head(input)


@pytest.mark.compile
@PART
def test_a_changed_part_compiles_in_one_graph(part: str, fresh_compiler: None) -> None:
    input, head = normal(4, P, seed=1), new_head()
    wrap(head, part)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    assert_same_output(compiled(input), head(input))


def test_a_changed_part_is_exported() -> None:
    head = new_head().eval()
    wrap(head, "reconstruction.intra")
    program = torch.export.export(head, (normal(4, P, seed=1),))
    assert_same_output(program.module()(normal(4, P, seed=1)), head(normal(4, P, seed=1)))


def test_functional_call_reaches_called_parts() -> None:
    head, input = new_head(), normal(4, P, seed=1)
    wrap(head, "decomposition")
    doubled = {name: 2 * value.detach() for name, value in head.named_parameters()}
    found = torch.func.functional_call(head, doubled, (input,))
    for parameter, value in zip(head.parameters(), doubled.values(), strict=True):
        parameter.data.copy_(value)
    assert_same_output(found, head(input))


TERMS = ("compactness", "balance", "distribution", "compactness.centers", "distribution.centers")


def new_loss(**options: Any) -> FDRLLoss:
    given: dict[str, Any] = {"lambda_compactness": 0.5, "dtype": torch.float64} | options
    return FDRLLoss(K, latent_dim=D, num_latents=M, **given)


@pytest.mark.parametrize("term", TERMS)
def test_a_hook_on_a_term_runs_once(term: str) -> None:
    output, target = new_head()(normal(4, P, seed=1)), torch.tensor([0, 1, 2, 1])
    loss, twin = new_loss(), new_loss()
    seen: list[Any] = []
    loss.get_submodule(term).register_forward_hook(lambda *found: seen.append(found))
    assert f"`{term}` has a forward hook" == loss._reason_to_call_terms()
    found, want = loss(output, target), twin(output, target)
    assert len(seen) == 1
    for name, value in vars(want).items():
        assert_close(name, vars(found)[name].detach(), value.detach(), torch.float64)
    loss.backend = "triton"
    with pytest.raises(RuntimeError, match=f"cannot run FDRLLoss: `{term}`"):
        loss(output, target)


def test_other_terms_count() -> None:
    output, target = new_head()(normal(4, P, seed=1)), torch.tensor([0, 1, 2, 1])
    loss = new_loss(lambda_balance=2.0)
    plain = new_loss(lambda_balance=2.0)(output, target)

    class Wide(CompactnessLoss):
        def forward(self, latents: Tensor) -> Tensor:
            return super().forward(latents) + 1

    loss.compactness = Wide(D, M, dtype=torch.float64)
    loss.balance = Gives(torch.tensor(3.0, dtype=torch.float64))  # type: ignore[assignment]
    loss.distribution = Gives(torch.tensor(0.0, dtype=torch.float64))  # type: ignore[assignment]
    found = loss(output, target)
    assert_close("compactness", found.compactness.detach(), plain.compactness.detach() + 1)
    total = found.classification + 0.5 * found.compactness + 2 * 3.0
    assert_close("total", found.total.detach(), total.detach())
    loss.compactness = Gives(torch.tensor(0.0, dtype=torch.float64))  # type: ignore[assignment]
    assert loss(output, target).compactness == 0
    loss.reset_parameters()
    with pytest.raises(ValueError, match=r"`output.logits` must have shape \(N, K\) with K = 5"):
        loss(FDRLOutput(output.logits[:, :2], *list(vars(output).values())[1:]), target)
