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
    r"""A backbone, its pooling and a head: images in, an :class:`FDRLOutput` out.

    :func:`attach_head` makes one and finds the width P, which is here the head's.

    .. math::
        \text{image} \xrightarrow{\text{backbone}} \cdot \xrightarrow{\text{pool}} x
        \xrightarrow{\text{head}} \text{logits}

    Args:
        backbone: A module, used as it is (of a transformers model with a head, its base model);
            or "timm:NAME", "torchvision:NAME" or "hf:NAME", built by that library without its
            classifier. For transformers, NAME is a type of model such as "vit", or a folder or
            file with a configuration.
        head: The head; its `in_features` is the width P.
        pool: How what the backbone gives becomes (N, P). "auto": vectors as they are, the mean
            of tokens (N, T, P) or of maps, and of a mapping what its model calls pooled, else
            what it calls last. "none": as it is, for a head on every token. "mean": of tokens or
            of maps (N, P, H, W). "token": the first token, which is the class token where there
            is one. "channels-last": the mean of maps (N, H, W, P). Or a function (a module, if
            it learns) of what the backbone gives.
        backbone_options: What goes to the library with a name. Nothing is downloaded unless they
            ask for weights: `pretrained=True` for timm and transformers, `weights="DEFAULT"` for
            torchvision.
        classifier: The dotted name of a layer of `backbone` in whose place an identity is put.

    Shape:
        - Input: what the backbone takes, (N, C, H, W).
        - Output: as of :class:`FDRLHead`, of (N, P); of whatever shape "none" or a function gives.

    Raises:
        ImportError: If the library of a name is not installed; it says which extra has it.
        TypeError: If an argument has the wrong type, or the backbone gives something in which
            the feature is not known.
        ValueError: If a name is unknown, or what the backbone gives does not fit `pool` or P.

    Note:
        Where maps could be (N, P, H, W) as well as (N, H, W, P), "auto" takes the axis that is P
        wide, and where both are it refuses. The classifier of a torchvision model is its last
        linear layer, so that what stands before it remains, as it does in timm: VGG-11 gives
        4,096 numbers and not 25,088.

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
    """Options that JSON cannot hold where they are a user's own."""

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
            # A class derived from FDRLHead has options that are not ours to know.
            "head": self.head._hub_options() if type(self.head) is FDRLHead else None,
        }

    @classmethod
    def _from_hub_options(cls, options: Mapping[str, Any]) -> Self:
        """Build a model from what `_hub_options` gave."""
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
        """Say where the backbone comes from, and how its output is pooled."""
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
    r"""Put a head on a backbone in the place of its classifier.

    The classifier is taken off the very module that is given, the width P of its feature is
    found in a dry run on two blank images, and the head is made for it, on the backbone's device
    and in its type. The dry run leaves no trace: modes, buffers, gradients and random states are
    as they were.

    Args:
        backbone: As in :class:`FDRLModel`.
        num_classes: Number K of classes, as in :class:`FDRLHead`. Paper: 7, or 6.
        pool: As in :class:`FDRLModel`.
        classifier: The layer to take off, by its dotted name; None takes off nothing. "auto":
            what a timm model calls its classifier; the base model of a transformers model; else
            the last linear layer of `fc`, `classifier`, `heads` or `head`, if that is what the
            backbone ends in.
        in_features: Width P, where it is not to be found in a dry run.
        image_size: Side or (height, width) of the blank images; by default what the backbone
            says of itself, or 224.
        in_channels: Their channels; by default those of the first convolution.
        backbone_options: As in :class:`FDRLModel`.
        head_options: Options of :class:`FDRLHead`.

    Shape:
        - The model's input: what the backbone takes, (N, C, H, W).
        - Its output: as of :class:`FDRLHead`, of (N, P).

    Returns:
        An :class:`FDRLModel` that holds `backbone`.

    Raises:
        ImportError: If the library of a name is not installed; it says which extra has it.
        TypeError: If an argument has the wrong type, or the backbone gives something in which
            the feature is not known.
        ValueError: If the dry run fails, or something can be read in two ways; it names the
            argument to give.

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
        # What is built from a name comes without.
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
