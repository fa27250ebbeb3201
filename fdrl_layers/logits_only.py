"""A wrapper that returns a tensor, for tools that support no other output."""

from torch import Tensor, nn


class LogitsOnly(nn.Module):
    r"""Returns only the logits of a model, for tools such as Captum, Grad-CAM and ONNX.

    Args:
        model: A module whose output has `logits`: an :class:`FDRLModel`, an :class:`FDRLHead`, or
            a sequence that ends in one.

    Shape:
        - Input: the input of `model`.
        - Output: (\*, K).

    Raises:
        TypeError: If `model` is not a module, or its output has no `logits`.

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
