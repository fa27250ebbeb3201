"""The head as public code writes it: one `nn.Linear` per branch, Python loops, `torch.cdist`.

It is the reference of the training parity test, and a baseline to measure against.
"""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fdrl_layers import FDRLHead, FDRLOutput


class LoopHead(nn.Module):
    """What `FDRLHead` computes, branch by branch."""

    intra: nn.ModuleList | None
    inter: nn.ModuleList | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        latent_dim: int = 128,
        num_latents: int = 9,
        delta: float = 0.5,
        intra: bool = True,
        inter: bool = True,
        reduction: str = "sum",
        bias: bool = True,
        self_feature: str = "intra",
    ) -> None:
        super().__init__()

        def branches(width: int) -> nn.ModuleList:
            linears = (nn.Linear(width, latent_dim, bias=bias) for _ in range(num_latents))
            return nn.ModuleList(linears)

        self.decomposition = branches(in_features)
        self.intra = branches(latent_dim) if intra else None
        self.inter = branches(latent_dim) if inter else None
        self.classifier = nn.Linear(latent_dim, num_classes, bias=bias)
        self.delta = delta
        self.reduction = reduction
        self.self_feature = self_feature

    def load_stacked(self, head: FDRLHead) -> None:
        """Copy the parameters of a head, one slice into each branch."""
        self.load_rows(head.state_dict())

    def load_rows(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy parameters under a head's state-dict keys, one slice into each branch."""
        state = {}
        for key, value in parameters.items():
            *path, kind = key.removeprefix("reconstruction.").split(".")
            if path == ["classifier"]:
                state[key] = value
            else:
                state |= {f"{path[0]}.{j}.{kind}": row for j, row in enumerate(value)}
        self.load_state_dict(state)

    def stacked(self, branches: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors under the names of this module's parameters, stacked as a head has them."""
        rows = defaultdict(list)
        for name, value in branches.items():
            layer, *_, kind = name.split(".")
            prefix = "reconstruction." if layer in ("intra", "inter") else ""
            rows[f"{prefix}{layer}.{kind}"].append(value)
        return {
            key: row[0] if key.startswith("classifier") else torch.stack(row)
            for key, row in rows.items()
        }

    def forward(self, input: Tensor) -> FDRLOutput:
        """Return the logits of basic features (N, P) and all on the way to them."""
        latents = [torch.relu(branch(input)) for branch in self.decomposition]
        features, intra_weights, inter_weights = latents, torch.ones_like(input[:, :1]), None
        intra_weights = intra_weights.expand(-1, len(latents))
        if self.intra is not None:
            features, intra_weights = self._intra_rm(self.intra, latents)
        parts = features
        if self.inter is not None:
            messages, aware, inter_weights = self._inter_rm(self.inter, features)
            own = messages if self.self_feature == "message" else features
            pairs = zip(own, aware, strict=True)
            parts = [self.delta * f + (1 - self.delta) * f_hat for f, f_hat in pairs]
        embedding = torch.stack(parts).sum(0)
        logits = self.classifier(embedding)
        return FDRLOutput(logits, embedding, torch.stack(latents, 1), intra_weights, inter_weights)

    def _intra_rm(self, gates: nn.ModuleList, latents: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        pairs = zip(gates, latents, strict=True)
        weights = torch.stack([gate(latent).sigmoid().sum(1) for gate, latent in pairs], 1)
        if self.reduction == "mean":
            weights = weights / latents[0].shape[1]
        elif self.reduction == "share":
            weights = weights / weights.sum(1, keepdim=True)
        return [weights[:, j, None] * latent for j, latent in enumerate(latents)], weights

    def _inter_rm(
        self, edges: nn.ModuleList, features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        pairs = zip(edges, features, strict=True)
        messages = torch.stack([torch.relu(edge(feature)) for edge, feature in pairs], 1)
        weights = torch.cdist(messages, messages).tanh()
        return list(messages.unbind(1)), list((weights @ messages).unbind(1)), weights
