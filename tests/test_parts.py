"""Parts that are as made are computed at once; changed ones are called, and count."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

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
from fdrl_layers.layers._stacked_linear import StackedLinear
from gradients import gradients
from strategies import normal

P, M, D, K = 16, 3, 8, 5
INPUT = normal(4, P, seed=1)
PARTS = ("decomposition", "reconstruction", "reconstruction.intra", "reconstruction.inter")
PART = pytest.mark.parametrize("part", PARTS)
Change = Callable[[nn.Module, str], Any]


def new_head(**options: Any) -> FDRLHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given: dict[str, Any] = {"reduction": "mean", "dtype": torch.float64} | options
        return FDRLHead(P, K, latent_dim=D, num_latents=M, **given)


def put(root: nn.Module, name: str, part: Any) -> None:
    """Set a submodule by its dotted name."""
    *path, last = name.split(".")
    setattr(root.get_submodule(".".join(path)), last, part)


def tensors(record: Any) -> dict[str, Tensor]:
    return {name: value for name, value in vars(record).items() if value is not None}


def assert_same(found: Any, want: Any) -> None:
    """Hold two outputs of a head, or of a loss, to the same values."""
    assert_close("output", tensors(found), tensors(want), torch.float64)


def composed(head: FDRLHead, part: str = "") -> FDRLOutput:
    """Call the parts one after another, as equations 1 to 12 say; a changed `part` as a whole."""
    latents = head.decomposition(INPUT)
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


def double(found: Any) -> Any:
    """Twice the first of what a part gives."""
    return (2 * found[0], *found[1:]) if isinstance(found, tuple) else 2 * found


def subclass(root: nn.Module, name: str) -> None:
    part = root.get_submodule(name)
    kind: Any = type(part)

    class Doubled(kind):  # type: ignore[misc]
        def forward(self, *arguments: Any, **options: Any) -> Any:
            return double(super().forward(*arguments, **options))

    part.__class__ = Doubled


class Calling(nn.Module):
    """Calls a module or a function, and gives what `then` makes of the result."""

    def __init__(self, inner: Callable[..., Any], then: Callable[[Any], Any] = double) -> None:
        super().__init__()
        self.inner, self.then = inner, then

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.then(self.inner(*arguments, **options))


def wrap(root: nn.Module, name: str) -> None:
    put(root, name, Calling(root.get_submodule(name)))


def replace_forward(root: nn.Module, name: str) -> None:
    part: Any = root.get_submodule(name)
    before = part.forward
    part.forward = lambda *arguments, **options: double(before(*arguments, **options))


def hooked(method: str, hook: Callable[..., Any], **options: Any) -> Change:
    return lambda root, name: getattr(root.get_submodule(name), method)(hook, **options)


class Negative(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -weight


def each_weight(change: Callable[[nn.Module], Any]) -> Change:
    """Change every module in a part that has a weight."""

    def apply(root: nn.Module, name: str) -> None:
        for each in list(root.get_submodule(name).modules()):
            if "weight" in each._parameters:
                change(each)

    return apply


PRE_HOOK = "register_forward_pre_hook"
CALLED: dict[str, Change] = {
    "subclass": subclass,
    "wrapped": wrap,
    "own forward": replace_forward,
    "forward hook": hooked("register_forward_hook", lambda _, __, found: double(found)),
    "forward pre-hook": hooked(PRE_HOOK, lambda _, given: (2 * given[0],)),
    "forward pre-hook with options": hooked(
        PRE_HOOK, lambda _, given, options: ((2 * given[0],), options), with_kwargs=True
    ),
    "pruned": each_weight(lambda each: prune.l1_unstructured(each, "weight", amount=0.5)),
}
FUSED: dict[str, Change] = {
    "parametrized": each_weight(
        lambda each: parametrize.register_parametrization(each, "weight", Negative())
    ),
    "spectral norm": each_weight(parametrizations.spectral_norm),
}


def changed_head(part: str, change: Change) -> FDRLHead:
    """A head in evaluation, with a part that no longer gives what it gave."""
    head = new_head()
    plain = head(INPUT).logits
    change(head, part)
    head.eval()
    assert not torch.allclose(head(INPUT).logits, plain)
    return head


@PART
@pytest.mark.parametrize("change", CALLED.values(), ids=CALLED)
def test_a_changed_part_counts(part: str, change: Change) -> None:
    head = changed_head(part, change)
    assert head.backend_choice(INPUT).name == "torch"
    assert f"`{part}" in head.backend_choice(INPUT).reason
    assert_same(head(INPUT), composed(head, part))
    head.backend = "triton"
    with pytest.raises(RuntimeError, match=f"cannot run FDRLHead: `{part}"):
        head(INPUT)


@PART
@pytest.mark.parametrize("change", FUSED.values(), ids=FUSED)
def test_a_parametrized_part_is_fused(part: str, change: Change) -> None:
    head = changed_head(part, change)
    assert head._reason_to_call_parts() is None
    assert_same(head(INPUT), composed(head))


@PART
def test_a_checkpointed_part_is_called_and_computes_the_same(part: str) -> None:
    head, plain = new_head(), new_head()
    put(head, part, checkpoint_wrapper(head.get_submodule(part)))
    assert "is a CheckpointWrapper" in head.backend_choice(INPUT).reason
    assert head.state_dict().keys() == plain.state_dict().keys()
    learned = []
    for each in (head, plain):
        parameters = dict(zip(plain.state_dict(), each.parameters(), strict=True))
        output = tensors(each(INPUT))
        learned.append(output | gradients(output, parameters))
    assert_close("output and gradients", learned[0], learned[1])


@pytest.mark.parametrize("part", [part for part in PARTS if part != "reconstruction"])
@pytest.mark.parametrize("kind", ["parametrization", "hook"])
def test_weight_norm_counts_as_a_parametrization_and_as_a_hook(part: str, kind: str) -> None:
    head, plain = new_head(), new_head()
    module: Any = head.get_submodule(part)
    if kind == "parametrization":
        scale = parametrizations.weight_norm(module).parametrizations.weight.original0
    else:
        with pytest.warns(FutureWarning, match="weight_norm"):
            scale = weight_norm(module).weight_g
    reason = head._reason_to_call_parts()
    assert (reason is None) == (kind == "parametrization")
    assert_same(head(INPUT), plain(INPUT))
    with torch.no_grad():
        scale.mul_(2)
        plain.get_parameter(f"{part}.weight").mul_(2)
    assert_same(head(INPUT), plain(INPUT))


def test_torchao_on_a_stacked_part_fails_rather_than_computes_something_else() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    head, features = FDRLHead(32, 5, latent_dim=32, num_latents=3), torch.randn(4, 32)
    torchao.quantize_(
        head,
        torchao.Int8WeightOnlyConfig(),
        filter_fn=lambda module, name: isinstance(module, StackedLinear),
    )
    assert "Int8Tensor" in str(head._reason_to_call_parts())
    with pytest.raises(NotImplementedError, match="Int8Tensor"):
        head(features)


@PART
def test_a_hook_runs_once_and_is_gone_when_removed(part: str) -> None:
    head, hook = new_head(), Mock(return_value=None)
    handle = head.get_submodule(part).register_forward_hook(hook)
    with_hook = head(INPUT)
    hook.assert_called_once()
    handle.remove()
    assert head._reason_to_call_parts() is None
    assert_same(head(INPUT), with_hook)
    hook.assert_called_once()


@PART
@pytest.mark.parametrize("kind", ["full_backward", "full_backward_pre"])
def test_a_backward_hook_runs(part: str, kind: str) -> None:
    head, hook = new_head(), Mock(return_value=None)
    getattr(head.get_submodule(part), f"register_{kind}_hook")(hook)
    head(INPUT.clone().requires_grad_()).logits.sum().backward()
    hook.assert_called_once()


def test_a_global_hook_sees_every_part() -> None:
    head, criterion = new_head(), FDRLLoss(K, latent_dim=D, num_latents=M, dtype=torch.float64)
    hook = Mock(return_value=None)
    with torch_module.register_module_forward_hook(hook):
        assert "all modules have a forward hook" in head.backend_choice(INPUT).reason
        criterion(head(INPUT), torch.tensor([0, 1, 2, 3]))
    kinds = {type(call.args[0]) for call in hook.call_args_list}
    assert kinds >= {FeatureDecomposition, IntraRelation, InterRelation, nn.Linear, BalanceLoss}


def test_another_forward_in_the_class_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    head, before = new_head(), IntraRelation.forward
    monkeypatch.setattr(IntraRelation, "forward", lambda *given: double(before(*given)))
    assert "another `forward`" in str(head._reason_to_call_parts())
    assert_same(head(INPUT), composed(head))


CLASSIFIERS: dict[str, Change] = {
    **CALLED,
    "own class": lambda root, name: put(root, name, nn.Sequential(root.get_submodule(name))),
}


@pytest.mark.parametrize("change", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_a_changed_classifier_is_called_after_the_rest(change: Change) -> None:
    head = new_head()
    change(head, "classifier")
    assert head._reason_to_call_parts() is None
    assert_same(head(INPUT), composed(head))


class Attention(nn.Module):
    """Another reconstruction altogether, without Inter-W."""

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, None]:
        weights = latents.mean(-1).softmax(-1)
        return (weights.unsqueeze(-1) * latents).sum(-2), weights, None


def test_other_modules_may_stand_for_the_parts() -> None:
    head = new_head()
    batch_normed = (nn.Linear(P, M * D), nn.BatchNorm1d(M * D), nn.ReLU(), nn.Unflatten(1, (M, D)))
    head.decomposition = nn.Sequential(*batch_normed).double()  # type: ignore[assignment]
    head.reconstruction = Attention()  # type: ignore[assignment]
    output = head(INPUT)
    assert output.latents.shape == (4, M, D)
    assert output.inter_weights is None
    output.logits.sum().backward()
    assert head.get_parameter("decomposition.0.weight").grad is not None
    head.reset_parameters()
    expected = head.eval()(INPUT).logits
    for copied in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(copied(INPUT).logits, expected)
    with pytest.raises(ValueError, match="`decomposition` must be a FeatureDecomposition"):
        head._hub_options()


def gives(found: Any) -> Any:
    """A module that gives this, whatever it is given."""
    return Calling(lambda *_, **__: None, lambda _: found)


EMBEDDING, INTRA_W = torch.ones(4, D), torch.ones(4, M)


@pytest.mark.parametrize(
    ("part", "found", "error", "match"),
    [
        ("decomposition", torch.ones(M * D), ValueError, r"decomposition\(input\)"),
        ("decomposition", [1], TypeError, r"decomposition\(input\)"),
        ("reconstruction", EMBEDDING, TypeError, "must be a tuple"),
        ("reconstruction", (EMBEDDING, torch.ones(4, 2), None), ValueError, r"Intra-W|\[1\]"),
        ("reconstruction.intra", (torch.ones(4, 2, D), INTRA_W), ValueError, "intra"),
        ("reconstruction.inter", (torch.ones(4, M, 2), None), ValueError, "inter"),
    ],
)
def test_a_part_must_give_what_fits(part: str, found: Any, error: Any, match: str) -> None:
    head = new_head(dtype=torch.float32)
    put(head, part, gives(found))
    with pytest.raises(error, match=match):
        head(torch.randn(4, P))


@pytest.mark.parametrize(
    ("changed", "options"),
    [
        ("intra", {"inter": False}),
        ("inter", {"intra": False}),
        ("intra", {"self_feature": "message"}),
        ("inter", {"self_feature": "message"}),
    ],
)
def test_a_called_relation_has_the_options_of_its_neighbours(changed: str, options: Any) -> None:
    head, hook = new_head(**options), Mock(return_value=None)
    plain = head(INPUT)
    head.get_submodule(f"reconstruction.{changed}").register_forward_hook(hook)
    assert_same(head(INPUT), plain)
    hook.assert_called_once()


def test_a_changed_inter_relation_gives_no_messages() -> None:
    head = new_head(self_feature="message")
    wrap(head, "reconstruction.inter")
    with pytest.raises(ValueError, match='`self_feature` must be "intra"'):
        head(INPUT)


@pytest.mark.compile
@PART
def test_a_changed_part_compiles_in_one_graph(part: str, fresh_compiler: None) -> None:
    head = new_head()
    wrap(head, part)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    assert_same(compiled(INPUT), head(INPUT))


def test_a_changed_part_is_exported() -> None:
    head = new_head().eval()
    wrap(head, "reconstruction.intra")
    assert_same(torch.export.export(head, (INPUT,)).module()(INPUT), head(INPUT))


def test_functional_call_reaches_called_parts() -> None:
    head = new_head()
    wrap(head, "decomposition")
    doubled = {name: 2 * value.detach() for name, value in head.named_parameters()}
    found = torch.func.functional_call(head, doubled, (INPUT,))
    head.load_state_dict(doubled)
    assert_same(found, head(INPUT))


TARGET = torch.tensor([0, 1, 2, 1])
TERMS = ("compactness", "balance", "distribution", "compactness.centers", "distribution.centers")


def new_loss(**options: Any) -> FDRLLoss:
    given: dict[str, Any] = {"lambda_compactness": 0.5, "dtype": torch.float64} | options
    return FDRLLoss(K, latent_dim=D, num_latents=M, **given)


@pytest.mark.parametrize("term", TERMS)
def test_a_hook_on_a_term_runs_once(term: str) -> None:
    output, loss, hook = new_head()(INPUT), new_loss(), Mock(return_value=None)
    loss.get_submodule(term).register_forward_hook(hook)
    assert f"`{term}` has a forward hook" == loss._reason_to_call_terms()
    assert_same(loss(output, TARGET), new_loss()(output, TARGET))
    hook.assert_called_once()
    loss.backend = "triton"
    with pytest.raises(RuntimeError, match=f"cannot run FDRLLoss: `{term}`"):
        loss(output, TARGET)


def test_other_terms_count() -> None:
    output, loss = new_head()(INPUT), new_loss(lambda_balance=2.0)
    plain = new_loss(lambda_balance=2.0)(output, TARGET)

    class Wide(CompactnessLoss):
        def forward(self, latents: Tensor) -> Tensor:
            return super().forward(latents) + 1

    three, zero = torch.tensor(3.0).double(), torch.tensor(0.0).double()
    loss.compactness = Wide(D, M, dtype=torch.float64)
    loss.balance, loss.distribution = gives(three), gives(zero)
    found = loss(output, TARGET)
    assert_close("compactness", found.compactness, plain.compactness + 1)
    total = found.classification + 0.5 * found.compactness + 2 * 3.0
    assert_close("total", found.total, total)
    loss.compactness = gives(zero)
    assert loss(output, TARGET).compactness == 0
    loss.reset_parameters()
    with pytest.raises(ValueError, match=r"`output.logits` must have shape \(N, K\) with K = 5"):
        loss(replace(output, logits=output.logits[:, :2]), TARGET)
