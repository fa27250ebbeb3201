"""A backbone and a head as one module, from images to an FDRLOutput."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from fdrl_layers.backbones.building import prepared_backbone
from fdrl_layers.backbones.classifier import find_classifier, put, take_off
from fdrl_layers.backbones.dry_run import ImageSize, blank_images, like, run_blank
from fdrl_layers.backbones.pooling import Pool, check_pool, pool_feature, resolved
from fdrl_layers.head import FDRLHead, FDRLOutput
from fdrl_layers.hub import HubMixin


class FDRLModel(HubMixin, nn.Module):
    r"""A backbone, its pooling and a head as one module: maps images to an :class:`FDRLOutput`.

    :func:`attach_head` builds a model and finds the width P; here, P is that of the head.

    .. math::
        \text{image} \xrightarrow{\text{backbone}} \cdot \xrightarrow{\text{pool}} x
        \xrightarrow{\text{head}} \text{logits}

    Args:
        backbone: A module, used as it is (for a transformers model with a head, its base model is
            used); or "timm:NAME", "torchvision:NAME" or "hf:NAME", built by that library without a
            classifier. For transformers, NAME is a type of model such as "vit", or a folder or file
            with a configuration.
        head: The head; its `in_features` is the width P.
        pool: How the backbone's output becomes (N, P). "auto": vectors unchanged, the mean of
            tokens (N, T, P) or of maps; a mapping is replaced by its `pooler_output`, else
            `last_hidden_state`, last of `feature_maps`, or `logits`. "none": unchanged, for a head
            on every token. "mean": the mean of tokens or of maps (N, P, H, W). "token": the first
            token, which is the class token if there is one. "channels-last": the mean of maps
            (N, H, W, P). Or a function of the backbone's output, a module if it has parameters.
        backbone_options: Options passed to the library with a name. Nothing is downloaded unless
            they request weights: `pretrained=True` for timm and transformers, `weights="DEFAULT"`
            for torchvision.
        classifier: The dotted name of a layer of `backbone` that is replaced by an identity.

    Shape:
        - Input: the input of the backbone, (N, C, H, W).
        - Output: that of :class:`FDRLHead` for (N, P), or for the shape that `pool` returns.

    Raises:
        ImportError: If the library of a name is not installed; the message names the extra.
        TypeError: If an argument has the wrong type, or the format of the backbone's output is
            unknown.
        ValueError: If a name is unknown, or the backbone's output does not fit `pool` or P.

    Note:
        If maps can be (N, P, H, W) or (N, H, W, P), "auto" uses the axis of size P as channels; if
        both axes have size P, it raises a ValueError. The classifier of a torchvision model is its
        last linear layer. The layers before it remain, as in timm: VGG-11 returns 4,096 numbers and
        not 25,088.

    Reference:
        Ruan et al., CVPR 2021, figure 2 and section 3: the backbone network; there ResNet-18.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fdrl_layers import FDRLHead, FDRLModel
        >>> backbone = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU())
        >>> model = FDRLModel(backbone, FDRLHead(16, num_classes=7))
        >>> model(torch.randn(4, 3, 32, 32)).logits.shape
        torch.Size([4, 7])
    """

    _OWN = ("backbone", "pool", "head")
    """Options that JSON cannot store if they are the user's own objects."""

    def __init__(
        self,
        backbone: nn.Module | str,
        head: FDRLHead,
        pool: Pool = "auto",
        *,
        backbone_options: Mapping[str, Any] | None = None,
        classifier: str | None = None,
    ) -> None:
        check_pool(pool)
        if not isinstance(head, FDRLHead):
            raise TypeError(f"`head` must be an FDRLHead, got {type(head).__name__}")
        super().__init__()
        built = prepared_backbone(backbone, backbone_options)
        if classifier is not None:
            take_off(built.module, classifier)
        self.backbone = built.module
        self.source = built.source
        self.source_options = built.options
        self.pool = pool
        self.head = head
        self.classifier = classifier

    def basic_feature(self, images: Tensor) -> Tensor:
        """Return the basic features (N, P) of images, which the head takes."""
        return pool_feature(self.backbone(images), self.pool, self.head.in_features)

    def forward(self, images: Tensor) -> FDRLOutput:
        """Return the :class:`FDRLOutput` of images."""
        output: FDRLOutput = self.head(self.basic_feature(images))
        return output

    def _hub_options(self) -> dict[str, Any]:
        """Return the options of the backbone, of the pooling and of the head."""
        return {
            "backbone": self.source,
            "backbone_options": self.source_options,
            "pool": self.pool if isinstance(self.pool, str) else None,
            "classifier": self.classifier,
            # The options of a subclass of FDRLHead are unknown here.
            "head": self.head._hub_options() if type(self.head) is FDRLHead else None,
        }

    @classmethod
    def _from_hub_options(cls, options: Mapping[str, Any]) -> Self:
        """Build a model from the options that `_hub_options` returned."""
        for name in cls._OWN:
            if options.get(name) is None:
                raise ValueError(
                    f"`{name}` must be given: the model was saved with one that is not ours"
                )
        known = dict(options)
        if isinstance(known["backbone"], nn.Module):
            known["backbone_options"] = None
        if isinstance(known["head"], Mapping):
            known["head"] = FDRLHead._from_hub_options(known["head"])
        return cls(**known)

    def _hub_needs(self) -> tuple[str, ...]:
        options = self._hub_options()
        return tuple(name for name in self._OWN if options[name] is None)

    def extra_repr(self) -> str:
        """Return the source of the backbone and the pooling of its output."""
        shown = f"pool={self.pool!r}" if isinstance(self.pool, str) else ""
        return ", ".join(part for part in (self.source, shown) if part)


def attach_head(
    backbone: nn.Module | str,
    num_classes: int,
    *,
    pool: Pool = "auto",
    classifier: str | None = "auto",
    in_features: int | None = None,
    image_size: ImageSize | None = None,
    in_channels: int | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    **head_options: Any,
) -> FDRLModel:
    r"""Replace the classifier of a backbone by a head.

    The classifier is removed from the given module in place. A dry run on two blank images finds
    the width P of the feature. The head is created for this width, on the backbone's device and in
    its type. The dry run has no side effects: it restores modes, buffers and random states, and
    adds no gradients.

    Args:
        backbone: As in :class:`FDRLModel`.
        num_classes: Number K of classes, as in :class:`FDRLHead`. Paper: 7, or 6.
        pool: As in :class:`FDRLModel`.
        classifier: The dotted name of the layer to remove; None removes nothing. "auto" removes
            what a timm model reports as its classifier, uses the base model of a transformers
            model, and otherwise removes the last linear layer of `fc`, `classifier`, `heads` or
            `head`, if the backbone ends in it.
        in_features: Width P; if None, it is found in a dry run.
        image_size: Side or (height, width) of the blank images; by default the size that the
            backbone declares, or 224.
        in_channels: Number of their channels; by default that of the first convolution.
        backbone_options: As in :class:`FDRLModel`.
        head_options: Options of :class:`FDRLHead`.

    Shape:
        - The model's input: the input of the backbone, (N, C, H, W).
        - The model's output: that of :class:`FDRLHead` for (N, P).

    Returns:
        An :class:`FDRLModel` that holds `backbone`.

    Raises:
        ImportError: If the library of a name is not installed; the message names the extra.
        TypeError: If an argument has the wrong type, or the format of the backbone's output is
            unknown.
        ValueError: If the dry run fails, or something is ambiguous; the message names the argument
            to give.

    Reference:
        Ruan et al., CVPR 2021, figure 2 and section 3: the backbone network; there ResNet-18.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fdrl_layers import attach_head
        >>> backbone = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU())
        >>> model = attach_head(backbone, num_classes=7, reduction="mean")
        >>> model.head.in_features
        16
        >>> model(torch.randn(4, 3, 32, 32)).logits.shape
        torch.Size([4, 7])
    """
    check_pool(pool)
    built = prepared_backbone(backbone, backbone_options)
    module = built.module
    if classifier == "auto":
        # A backbone built from a name has no classifier.
        images = partial(blank_images, module, image_size, in_channels)
        classifier = find_classifier(module, images) if built.source is None else None
    layer = None if classifier is None else take_off(module, classifier)
    try:
        if in_features is None:
            output = run_blank(module, blank_images(module, image_size, in_channels))
            pool, in_features = resolved(output, pool), pool_feature(output, pool).shape[-1]
        head = FDRLHead(in_features, num_classes, **like(module) | head_options)
    except Exception:
        if classifier is not None and layer is not None:
            put(module, classifier, layer)
        raise
    model = FDRLModel(module, head, pool, classifier=classifier)
    model.source, model.source_options = built.source, built.options
    return model
