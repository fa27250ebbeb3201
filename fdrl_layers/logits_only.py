"""A model that gives a tensor, for tools that know no other output."""

from torch import Tensor, nn


class LogitsOnly(nn.Module):
    r"""Gives the logits of a model and nothing else: for Captum, Grad-CAM, ONNX and the like.

    Args:
        model: A module whose output has `logits`: an :class:`FDRLModel`, an :class:`FDRLHead`, or
            a sequence that ends in one.

    Shape:
        - Input: what `model` takes.
        - Output: (\*, K).

    Raises:
        TypeError: If `model` is no module, or what it gives has no `logits`.

    Reference:
        Ruan et al., CVPR 2021, section 3.4: the expression prediction network.

    Example:
        >>> import torch
        >>> from fdrl_layers import FDRLHead, LogitsOnly
        >>> LogitsOnly(FDRLHead(512, num_classes=7))(torch.randn(4, 512)).shape
        torch.Size([4, 7])
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
        super().__init__()
        self.model = model

    def forward(self, input: Tensor) -> Tensor:
        r"""Return the logits (\*, K)."""
        output = self.model(input)
        logits = getattr(output, "logits", None)
        if not isinstance(logits, Tensor):
            raise TypeError(f"`model` must give `logits`, got {type(output).__name__}")
        return logits
