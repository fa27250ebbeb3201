"""Train FDRL with Lightning: `python examples/loops/lightning_loop.py`.

Needs `pip install "lightning>=2.6.4"`: the releases 2.6.2 and 2.6.3 were malicious.
"""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from plain import CLASSES, EPOCHS, make_data, make_model
from torch import Tensor
from torch.utils.data import DataLoader

from fdrl_layers import FDRLLoss


class FDRL(lightning.LightningModule):
    """The network and the loss as submodules, so that the centers are moved, saved and resumed."""

    def __init__(self, lr: float = 1e-4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = make_model()
        self.criterion = FDRLLoss(CLASSES)
        self.lr = lr

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Log every term and return the joint loss."""
        faces, labels = batch
        losses = self.criterion(self.network(faces), labels)
        self.log_dict({f"train/{name}": value for name, value in vars(losses).items()})
        total: Tensor = losses.total
        return total

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the accuracy; evaluation does not update the centers."""
        faces, labels = batch
        hits = self.network(faces).logits.argmax(1) == labels
        # Average over all processes, weighted by their numbers of faces.
        self.log("valid/accuracy", hits.float().mean(), batch_size=len(labels), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam; the loss has parameters only if its centers are updated by gradient."""
        parameters = [*self.network.parameters(), *self.criterion.parameters()]
        return torch.optim.Adam(parameters, lr=self.lr, betas=(0.5, 0.999))


def train(folder: str, accelerator: str = "auto") -> FDRL:
    """Train for a few epochs and keep the best checkpoint in `folder`."""
    module = FDRL()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, monitor="valid/accuracy", mode="max", filename="best")],
        accelerator=accelerator,
        devices=1,
        gradient_clip_val=5.0,
        log_every_n_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        module,
        DataLoader(make_data(), batch_size=8, shuffle=True, drop_last=True),
        DataLoader(make_data(), batch_size=8),
    )
    return module


if __name__ == "__main__":
    train("runs/lightning")
