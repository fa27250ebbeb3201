"""Combine all thumbnails in one picture, so that the page contains them once and stays small."""

import base64
import io
from dataclasses import dataclass
from math import ceil, sqrt

from PIL import Image
from torch import Tensor
from torch.nn import functional as F

MAX_BYTES = 2_400_000
"""Maximum size of a sheet in bytes; base64 adds a third."""

# 48 pixels are three WebP blocks, so that compression does not mix neighboring faces.
ATTEMPTS = ((48, 80), (48, 55), (32, 60), (16, 40))
"""Sizes in pixels and qualities, best first; the last one is used even if it is too large."""


@dataclass(frozen=True)
class Sheet:
    """A picture with faces in a grid, row by row.

    Attributes:
        uri: The picture as a data URI.
        columns: Number of faces in a row.
        rows: Number of rows.
    """

    uri: str
    columns: int
    rows: int

    def css_position(self, index: int) -> str:
        """Return the CSS `background-position` of a face."""
        row, column = divmod(index, self.columns)
        return f"{_percent(column, self.columns)} {_percent(row, self.rows)}"


def _percent(index: int, count: int) -> str:
    return f"{100 * index / max(count - 1, 1):.4g}%"


def make_sheet(images: Tensor, max_bytes: int = MAX_BYTES) -> Sheet:
    """Arrange uint8 faces (n, 1 or 3, H, W) on one sheet of at most about `max_bytes` bytes."""
    columns = ceil(sqrt(len(images)))
    rows = ceil(len(images) / columns)
    content = b""
    for size, quality in ATTEMPTS:
        content = _encode(images, columns, rows, size, quality)
        if len(content) <= max_bytes:
            break
    uri = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
    return Sheet(uri, columns, rows)


def _encode(images: Tensor, columns: int, rows: int, size: int, quality: int) -> bytes:
    if images.shape[-1] != size:
        resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
        images = resized.round_().clamp_(0, 255).byte()
    fields = images.new_zeros(columns * rows, images.shape[1], size, size)
    fields[: len(images)] = images
    grid = fields.view(rows, columns, -1, size, size).permute(0, 3, 1, 4, 2)
    pixels = grid.reshape(rows * size, columns * size, -1).expand(-1, -1, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(buffer, "webp", quality=quality)
    return buffer.getvalue()
