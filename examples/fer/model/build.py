"""Build a ResNet (section 4.2) with a head and its losses, and load them from a run's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet18_Weights, resnet18

from fdrl_layers import FDRLHead, FDRLLoss, FDRLLossOutput, FDRLOutput
from fer.model import checkpoint
from fer.model.attachment import MapHead
from fer.model.classification import compute_class_weights, make_classification
from fer.model.intra_variation import NormalizedIntraRelation, VariedIntraLoss
from fer.model.resnet import BLOCKS, ResNet
from fer.model.weights import LoadResult, fill_backbone
from fer.options import Options, load_options


def make_model(options: Options, classes: int) -> nn.Sequential:
    """Return a ResNet without its classifier, followed by a head."""
    backbone, _ = make_backbone(options)
    width = 8 * options.width
    if options.head == "linear":
        head: nn.Module = nn.Linear(width, classes)
        if options.batch_norm:
            head = nn.Sequential(nn.BatchNorm1d(width), head)
    elif options.head == "plain":
        head = make_plain_head(options, width, classes)
    else:
        fdrl = make_fdrl_head(options, width, classes)
        on_maps = options.attach != "pooled"
        head = MapHead(fdrl, use_attention=options.attach == "attention") if on_maps else fdrl
    return nn.Sequential(backbone, head)


def make_fdrl_head(
    options: Options, width: int, classes: int, device: str | None = None
) -> FDRLHead:
    """Return the FDRL head."""
    head = FDRLHead(
        width,
        classes,
        latent_dim=options.latent_dim,
        num_latents=options.num_latents,
        delta=options.delta,
        intra=options.intra,
        inter=options.inter,
        reduction=options.reduction,
        gate_init=options.gate_init,
        self_feature=options.self_feature,
        device=device,
    )
    if options.normalize_latents:
        plain = head.reconstruction.get_submodule("intra")
        normed = NormalizedIntraRelation(
            options.latent_dim,
            options.num_latents,
            reduction=options.reduction,
            gate_init=options.gate_init,
            device=device,
        )
        normed.load_state_dict(plain.state_dict())
        head.reconstruction.intra = normed
    if options.batch_norm:
        norm = nn.BatchNorm1d(options.latent_dim, device=device)
        last = head.get_submodule("classifier")
        head.register_module("classifier", nn.Sequential(norm, last))
    return head


def make_plain_head(options: Options, width: int, classes: int) -> nn.Sequential:
    """Return a head of FDRL's size without its structure, to measure the structure's effect."""
    hidden = options.hidden
    last = nn.Linear(options.latent_dim, classes)
    if not hidden:
        fdrl = make_fdrl_head(options, width, classes, device="meta")
        count = sum(each.numel() for each in fdrl.parameters())
        count -= sum(each.numel() for each in last.parameters()) + options.latent_dim
        hidden = round(count / (width + 1 + options.latent_dim))
    norm = [nn.BatchNorm1d(options.latent_dim)] if options.batch_norm else []
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, options.latent_dim), *norm, last
    )


def make_backbone(options: Options) -> tuple[nn.Module, LoadResult | None]:
    """Return a ResNet that computes the basic feature, and what a file of weights filled in it."""
    backbone: nn.Module
    if options.is_paper_backbone:
        backbone = resnet18(weights=ResNet18_Weights.IMAGENET1K_V1 if options.imagenet else None)
        backbone.fc = nn.Identity()
    else:
        backbone = ResNet(
            BLOCKS[options.backbone],
            options.width,
            small=options.small_stem,
            last_stride=options.last_stride,
        )
    if options.attach != "pooled":
        backbone.avgpool = nn.Identity()
    if options.backbone_weights is None:
        return backbone, None
    return backbone, fill_backbone(backbone, Path(options.backbone_weights))


def check_weights(options: Options) -> None:
    """Load the file of weights and print what it fills, or raise, before a run has a folder."""
    _, matched = make_backbone(options)
    if matched is not None:
        print(f"{options.backbone_weights}: {matched}", flush=True)


def make_criterion(options: Options, classes: int, counts: Tensor | None = None) -> FDRLLoss:
    """Return the joint loss (equation 13) with its centers.

    Remedies for rare classes require the numbers `counts` (K,) of training faces.
    Without Intra-RM there are no relation weights, so their losses have the weight 0.
    """
    classification = None if counts is None else make_classification(options, counts)
    weight = None if counts is None else compute_class_weights(counts, options.class_weights)
    varied = options.lambda_peak or options.lambda_apart
    criterion = (VariedIntraLoss if varied else FDRLLoss)(
        classes,
        num_latents=options.num_latents,
        latent_dim=options.latent_dim,
        lambda_compactness=options.lambda_compactness,
        lambda_balance=options.lambda_balance if options.intra else 0,
        lambda_distribution=options.lambda_distribution if options.intra else 0,
        center_update=options.center_update if options.center_update != "frozen" else "gradient",
        weight=weight if classification is None else None,
        classification=classification,
        label_smoothing=options.label_smoothing if classification is None else 0,
    )
    if isinstance(criterion, VariedIntraLoss):
        criterion.lambda_peak = options.lambda_peak
        criterion.lambda_apart = options.lambda_apart
    if options.center_update == "frozen":
        for centers in (criterion.compactness.centers, criterion.distribution.centers):
            nn.init.normal_(centers.value).requires_grad_(False)
            centers.seen.fill_(True)
    return criterion


def compute_losses(
    criterion: FDRLLoss, output: FDRLOutput | Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """Return the loss for labels (N,) or shares (N, K) as `total`, and for FDRL its terms."""
    if isinstance(output, FDRLOutput):
        losses: FDRLLossOutput = criterion(output, targets)
        return vars(losses)
    if criterion.classification is not None:
        return {"total": criterion.classification(output, targets)}
    wide = output.to(torch.promote_types(output.dtype, torch.float32))
    smoothing = criterion.label_smoothing
    return {"total": F.cross_entropy(wide, targets, label_smoothing=smoothing)}


def make_parameter_groups(
    model: nn.Module, criterion: nn.Module, weight_decay: float
) -> list[dict[str, Any]]:
    """Return parameter groups: weights with weight decay; biases, norms and centers without."""
    decaying = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim > 1 and not name.endswith("bias")
    ]
    known = set(map(id, decaying))
    every = (*model.parameters(), *criterion.parameters())
    rest = [each for each in every if each.requires_grad and id(each) not in known]
    return [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


def get_logits(output: FDRLOutput | Tensor) -> Tensor:
    """Return the logits of either head."""
    return output.logits if isinstance(output, FDRLOutput) else output


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model loaded from a run's folder, ready to predict.

    Attributes:
        model: Backbone and head, in evaluation mode.
        classes: Names of the classes, in the order of the logits.
        options: Options of the run.
        gray: Whether it was trained on gray faces.
        epoch: Number of completed epochs when it was saved.
    """

    model: nn.Sequential
    classes: tuple[str, ...]
    options: Options
    gray: bool
    epoch: int


def load_trained(run: Path, which: str = "last", device: str = "cpu") -> TrainedModel:
    """Load the model, averaged if available, from `last.pt` or `best.pt` in a run's folder."""
    options = load_options(run)
    state: dict[str, Any] = checkpoint.read_checkpoint(run / f"{which}.pt", device)
    classes = tuple(state["classes"])
    model = make_model(options.without_weights(), len(classes)).to(device)
    model.load_state_dict(state.get("ema") or state["model"])
    return TrainedModel(model.eval(), classes, options, state["gray"], len(state["history"]))


@torch.no_grad()
def compute_outputs(model: nn.Sequential, images: Tensor) -> tuple[Tensor, FDRLOutput | Tensor]:
    """Return FDRL's embedding (N, D), or else the basic feature (N, P), and the head's output."""
    basic = model[0](images)
    output = model[1](basic)
    return output.embedding if isinstance(output, FDRLOutput) else basic, output
