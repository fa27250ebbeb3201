"""The whole head: basic features in, logits and everything on the way to them out."""

from fdrl_layers.head.function import fdrl_head
from fdrl_layers.head.module import FDRLHead
from fdrl_layers.head.output import FDRLOutput

__all__ = ["FDRLHead", "FDRLOutput", "fdrl_head"]
