"""What an installed wheel must do: import lightly, run forward and backward, carry its types."""

import importlib
import sys
from importlib.metadata import version
from pathlib import Path

import torch

HEAVY = {
    "matplotlib",
    "PIL",
    "safetensors",
    "sklearn",
    "timm",
    "torchvision",
    "tqdm",
    "transformers",
    "triton",
}


def main(site_packages: Path) -> None:
    """Check the package that lies in `site_packages`."""
    # torch has brought its own, tqdm among them where it is installed.
    before = set(sys.modules)
    package = importlib.import_module("fdrl_layers")
    if loaded := HEAVY & (set(sys.modules) - before):
        raise SystemExit(f"import fdrl_layers loads {', '.join(sorted(loaded))}")

    folder = Path(str(package.__file__)).parent
    if folder.parent != site_packages.resolve():
        raise SystemExit(f"fdrl_layers came from {folder}, not from the wheel in {site_packages}")
    if not (folder / "py.typed").is_file():
        raise SystemExit("the wheel has no py.typed")
    if version("fdrl-layers") != package.__version__:
        raise SystemExit(f"metadata says {version('fdrl-layers')}, not {package.__version__}")

    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3, stride=2), torch.nn.ReLU())
    model = package.attach_head(backbone, num_classes=7, latent_dim=8)
    criterion = package.FDRLLoss(num_classes=7, latent_dim=8)
    loss = criterion(model(torch.randn(4, 3, 16, 16)), torch.randint(7, (4,))).total
    loss.backward()
    if not all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()):
        raise SystemExit("a gradient is missing or not finite")
    print(f"fdrl-layers {package.__version__} from the wheel: loss {loss.item():.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
