"""Hand-written passes of the reconstruction, from latents to embedding, without the head."""

from collections.abc import Sequence

from torch import Tensor

from fdrl_layers.ops.by_hand import Needs, Tensors
from fdrl_layers.ops.eager.relations import (
    Options,
    Saved,
    open_workspace,
    relate,
    relate_backward,
    split,
)
from fdrl_layers.ops.reference.head import RelationParameters, reconstruct


class Reconstruction:
    """The embedding, Intra-W and Inter-W of latents: a :class:`fdrl_layers.ops.by_hand.Form`."""

    def forward(
        self, tensors: Tensors, options: Options, keep: bool
    ) -> tuple[Sequence[Tensor], Tensors]:
        """Return y (N, D), Intra-W and Inter-W of latents (N, M, D)."""
        latents, p = split(RelationParameters, tensors)
        embedding, intra_weights, inter_weights, saved = relate(latents, p, options, keep)
        return (embedding.to(latents.dtype), intra_weights, inter_weights), saved

    def backward(
        self, gradients: Tensors, tensors: Tensors, saved: Tensors, options: Options, needs: Needs
    ) -> Tensors:
        """Return the gradients of latents and parameters."""
        latents, p = split(RelationParameters, tensors)
        grad_embedding, grad_intra, grad_inter = gradients
        if grad_embedding is None and grad_inter is None:
            if grad_intra is None:
                return (None,) * len(tensors)
            # Intra-W does not depend on Inter-RM.
            needs = (*needs[:3], False, False)
        kept = Saved._make(saved)
        workspace = open_workspace(latents, p, kept, options, returned=True)
        dy = workspace.nodes[:, -1]
        dy.zero_() if grad_embedding is None else dy.copy_(grad_embedding)
        found = relate_backward(
            workspace, grad_intra, grad_inter, None, latents, p, kept, options, needs
        )
        return tuple(
            None if grad is None or each is None else grad.to(each.dtype)
            for grad, each in zip(found, tensors, strict=True)
        )

    def reference(self, tensors: Tensors, options: Options) -> Tensors:
        """Return the same outputs by operators of PyTorch."""
        latents, p = split(RelationParameters, tensors)
        return reconstruct(latents, *p, options.delta, options.reduction)
