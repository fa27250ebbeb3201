"""The output of the joint loss."""

from dataclasses import dataclass

from torch import Tensor

from fdrl_layers._exported import register
from fdrl_layers._record import Record, gatherable


@gatherable
@dataclass(frozen=True, eq=False)
class FDRLLossOutput(Record):
    """The joint loss and its four terms, each without its weight.

    It can be iterated, unpacked and indexed in the order of its attributes.

    Attributes:
        total: The joint loss, for ``backward`` (equation 13).
        classification: Cross-entropy or its replacement.
        compactness: Equation 2.
        balance: Equation 6.
        distribution: Equation 5.
    """

    total: Tensor
    classification: Tensor
    compactness: Tensor
    balance: Tensor
    distribution: Tensor


register(FDRLLossOutput)


def join(
    classification: Tensor,
    compactness: Tensor,
    balance: Tensor,
    distribution: Tensor,
    weights: tuple[float, float, float],
) -> FDRLLossOutput:
    """Combine the terms by their weights (equation 13)."""
    total = (
        classification + weights[0] * compactness + weights[1] * balance + weights[2] * distribution
    )
    return FDRLLossOutput(total, classification, compactness, balance, distribution)
