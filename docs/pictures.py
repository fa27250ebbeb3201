"""The pictures that are drawn when the documentation is built."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from fer.data.synthetic import draw_synthetic_faces

A_ROW = 8


def write(folder: Path) -> None:
    """Draw synthetic faces to `folder`, a row for each expression in the order of the classes."""
    folder.mkdir(parents=True, exist_ok=True)
    database = draw_synthetic_faces(train=0, test=A_ROW * 7)
    faces = database.splits["test"]
    by_expression = faces.images[faces.labels.argsort(stable=True)]
    grid = make_grid(by_expression, nrow=A_ROW, padding=4, pad_value=255)
    to_pil_image(grid).save(folder / "synthetic_faces.jpg", quality=90)
