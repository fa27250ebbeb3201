"""The output of a head."""

from dataclasses import dataclass

from torch import Tensor

from fdrl_layers._exported import register
from fdrl_layers._record import Record, gatherable


@gatherable
@dataclass(frozen=True, eq=False)
class FDRLOutput(Record):
    r"""Output of a head for basic features (\*, P).

    It is registered with ``torch.export`` as an output of exported programs. It can be iterated,
    unpacked and indexed in the order of its attributes, and ``nn.DataParallel`` gathers it.

    Attributes:
        logits: Class scores (\*, K); (\*, 0) if the head has no prediction layer.
        embedding: The expression feature y (\*, D), equation 12.
        latents: The latents l (\*, M, D), equation 1.
        intra_weights: Intra-W (\*, M), equation 4; all 1 if Intra-RM is omitted.
        inter_weights: Inter-W (\*, M, M), equation 9; None if Inter-RM is omitted.
    """

    logits: Tensor
    embedding: Tensor
    latents: Tensor
    intra_weights: Tensor
    inter_weights: Tensor | None


register(FDRLOutput)
