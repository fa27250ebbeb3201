"""Read Oulu-CASIA (Zhao et al. 2011) in visible light and strong illumination."""

from collections.abc import Mapping
from pathlib import Path

from fer.data.class_folders import (
    EXPRESSIONS,
    find_class_folders,
    list_images,
    list_subfolders,
    require_class_folders,
)
from fer.data.clips import Clip, load_clips, select_last_frames
from fer.data.faces import Database

CLASSES = EXPRESSIONS
COUNTS: Mapping[str, int] = {"clips": 480, "images": 1_440, "people": 80}
LIGHTS = (
    "OriginalImg/VL/Strong",
    "B_OriginalImg/VL/Strong",
    "PreProcess Img/VL_Acropped/Strong",
    "VL/Strong",
    "VL_Acropped/Strong",
    "Strong",
)


def load_oulu(root: Path, *, check_counts: bool = True, progress: bool = False) -> Database:
    """Read the last three frames of each sequence taken in visible, strong light.

    Args:
        root: the folder that contains `VL/Strong/P001/Anger/000.jpeg`, or `VL_Acropped`, or the
            database's `OriginalImg` or `PreProcess Img` with one of them.
        check_counts: require the 480 sequences and 1,440 images of the paper, of 80 people.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: there is no such folder, or, with `check_counts`, a person lacks an
            expression.
        ValueError: there is more than one such folder, the folder is of infrared images, a sequence
            has too few frames, the counts differ, or the images differ in size.
    """
    base = find_base(root)
    clips = [
        Clip(person.name, f"{person.name}/{folder.name}", label, tuple(list_images(folder)))
        for person in list_subfolders(base)
        for label, folder in find_expression_folders(person, check_counts)
    ]
    return load_clips(
        "oulu",
        base,
        CLASSES,
        clips,
        select_last_frames,
        COUNTS,
        check_counts=check_counts,
        progress=progress,
    )


def find_expression_folders(person: Path, check_counts: bool) -> list[tuple[int, Path]]:
    """Return the label and the folder of each expression that a person shows."""
    if not check_counts:
        return find_class_folders(person, CLASSES)
    try:
        return require_class_folders(person, CLASSES)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} (--no-check-counts goes on without)") from error


def find_base(root: Path) -> Path:
    """Return the only folder at or under `root` that contains a folder for each person."""
    if not root.is_dir():
        raise FileNotFoundError(f"root: there is no folder {root}")
    inside = [root / light for light in LIGHTS if (root / light).is_dir()]
    bases = [root] if root.resolve().name == "Strong" else inside
    if not bases:
        raise FileNotFoundError(
            f"root: no Oulu-CASIA in {root}; looked for {', '.join(LIGHTS)} in it"
        )
    if len(bases) > 1:
        raise ValueError(
            f"root: {root} holds {', '.join(str(base.relative_to(root)) for base in bases)}; "
            "name the one to read"
        )
    if bases[0].resolve().parent.name.startswith("NI"):
        raise ValueError(f"root: {bases[0]} is of infrared images; name the folder in VL instead")
    return bases[0]
