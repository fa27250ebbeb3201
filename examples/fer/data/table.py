"""The table of databases: how each is read, and whether it has splits or is cross-validated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fer.data.ckplus import load_ckplus
from fer.data.faces import Database
from fer.data.ferplus import load_ferplus
from fer.data.folder import load_folder
from fer.data.folds import select_fold
from fer.data.mmi import load_mmi
from fer.data.oulu import load_oulu
from fer.data.rafdb import load_rafdb
from fer.data.sfew import load_sfew
from fer.data.synthetic import draw_synthetic_faces
from fer.options import Options


@dataclass(frozen=True)
class Entry:
    """How a database is read.

    Attributes:
        read: Reads the database as the options specify.
        is_cross_validated: Whether it has no splits and is therefore cross-validated.
        paper_accuracies: Accuracies of the paper's baseline and of FDRL (table 3), in percent.
    """

    read: Callable[[Options, bool], Database]
    is_cross_validated: bool = False
    paper_accuracies: tuple[float, float] | None = None


def _make_reader(load: Callable[..., Database]) -> Callable[[Options, bool], Database]:
    return lambda options, progress: load(
        Path(options.data or ""), check_counts=options.check_counts, progress=progress
    )


def _ferplus(options: Options, progress: bool) -> Database:
    return load_ferplus(
        Path(options.data or ""),
        labels=options.labels,
        shares=options.targets != "majority",
        check_counts=options.check_counts,
        progress=progress,
    )


def _folder(options: Options, progress: bool) -> Database:
    return load_folder(
        Path(options.data or ""), options.classes, subject=options.subject, progress=progress
    )


def _synthetic(options: Options, progress: bool) -> Database:
    return draw_synthetic_faces(options.faces, 2 * options.faces // 5, progress=progress)


DATABASES: Mapping[str, Entry] = {
    "synthetic": Entry(_synthetic),
    "rafdb": Entry(_make_reader(load_rafdb), paper_accuracies=(86.93, 89.47)),
    "ferplus": Entry(_ferplus),
    "sfew": Entry(_make_reader(load_sfew), paper_accuracies=(58.03, 62.16)),
    "ckplus": Entry(
        _make_reader(load_ckplus), is_cross_validated=True, paper_accuracies=(97.15, 99.54)
    ),
    "mmi": Entry(_make_reader(load_mmi), is_cross_validated=True, paper_accuracies=(79.69, 85.23)),
    "oulu": Entry(
        _make_reader(load_oulu), is_cross_validated=True, paper_accuracies=(86.18, 88.26)
    ),
    "folder": Entry(_folder),
}


DATA_OPTIONS = (
    "dataset",
    "data",
    "labels",
    "targets",
    "classes",
    "subject",
    "check_counts",
    "faces",
)
"""The options that determine which faces are read."""

_cache: dict[Options, Database] = {}


def read_all_faces(options: Options, *, progress: bool = False) -> Database:
    """Read and decode a whole database, without dividing it into folds.

    The last database read is cached, so that folds and the runs of a table share it.
    """
    data_options = Options(**{name: getattr(options, name) for name in DATA_OPTIONS})
    if data_options not in _cache:
        _cache.clear()
        _cache[data_options] = DATABASES[data_options.dataset].read(data_options, progress)
    return _cache[data_options]


def read_database(options: Options, *, progress: bool = False) -> Database:
    """Decode all faces, so that errors in them are found before training.

    For a database without splits, return the fold that `options` specifies, or the whole database
    if it specifies none.
    """
    database = read_all_faces(options, progress=progress)
    if options.fold is None:
        return database
    return select_fold(database, options.fold, options.folds, options.fold_seed)
