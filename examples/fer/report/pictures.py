"""Find pictures of common formats in folders and decode them to gray or RGB."""

from pathlib import Path

import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

ENDINGS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))


def list_pictures(root: Path) -> list[Path]:
    """Return the pictures in a folder and its subfolders, sorted by path, without hidden ones."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def read_picture(path: Path) -> Image.Image:
    """Decode a picture with its EXIF orientation, in mode "L" or "RGB".

    Transparent areas become white. An animation gives its first frame.

    Raises:
        ValueError: there is no such file, it cannot be decoded, or it has more than 8 bits a
            channel.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    try:
        # Decoding alone ignores a wrong checksum, which `verify` detects.
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            upright.load()
    except Exception as error:  # Pillow's decoders raise many types, including SyntaxError.
        raise ValueError(f"cannot be decoded: {error}") from error
    if upright.mode[0] in "IF":
        raise ValueError(f"expected 8 bits a channel, got mode {upright.mode}")
    if upright.has_transparency_data:
        solid = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", solid.size, "white"), solid)
    return upright.convert("L" if upright.mode in ("1", "L") else "RGB")


def as_tensor(picture: Image.Image) -> torch.Tensor:
    """Return a picture as uint8 (1, H, W) or (3, H, W)."""
    tensor: torch.Tensor = pil_to_tensor(picture)
    return tensor


def as_picture(tensor: torch.Tensor) -> Image.Image:
    """Return uint8 (1, H, W) or (3, H, W) as a picture."""
    picture: Image.Image = to_pil_image(tensor.cpu())
    return picture
