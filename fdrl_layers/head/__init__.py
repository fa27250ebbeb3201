"""The whole head, from basic features to logits and the results on the way to them."""

from fdrl_layers.head.function import fdrl_head
from fdrl_layers.head.module import FDRLHead
from fdrl_layers.head.output import FDRLOutput

__all__ = ["FDRLHead", "FDRLOutput", "fdrl_head"]
