"""Do latents mean anything? Compare Intra-W with action units of drawn faces, and with labels.

    python -m benchmarks.studies meaning --data DIR [--scale gpu]

Trains FDRL on drawn faces, whose action units are known, and on FER+, and the baseline on drawn
faces. For each unit it computes the mutual information, in nats, with the best latent's Intra-W,
with the best of the baseline's features and with the best of as many shuffled columns. For each
latent it counts how many of the 50 test faces with the highest Intra-W share a label (figure 3).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.schema import RESULTS, load, round_numbers
from benchmarks.studies.plan import Row
from benchmarks.studies.questions import DRAWN_FACES as DRAWN, LINEAR_DRAWN
from benchmarks.studies.schedule import Job, Place, add_missing_starts
from benchmarks.studies.store import DIGITS
from benchmarks.studies.train import run_folder
from fer.evaluation.predictions import StoredEvaluation, read_evaluation
from fer.report.units import find_best_features, measure_dependence

NAME = "meaning"
QUESTION = "Do latents mean anything? Intra-W against the action units of drawn faces."
RESULTS_FOLDER = RESULTS / NAME

VARIANTS = {
    "": {},
    ", λ2 = 0": {"lambda_balance": 0.0},
    ", λ2 = 0.01": {"lambda_balance": 0.01},
    ", classes apart, 0.1": {"lambda_apart": 0.1},
}
"""Settings of FDRL by the suffix of their label; with the last two, Intra-W varies over faces."""

ROWS = {
    f"{faces}{label}": Row(f"FDRL, {faces}{label}", {**overrides, **data})
    for faces, data in (("drawn", DRAWN), ("FER+", {}))
    for label, overrides in VARIANTS.items()
}
GROUP_SIZE = 50
"""Number of faces with the highest Intra-W of a latent."""


@dataclass(frozen=True)
class Meaning:
    """What the latents of one seed's models tell. Information is a mean over units, in nats.

    Attributes:
        seed: Seed of the models.
        baseline: Information of the baseline's feature that correlates best with each unit.
        shuffled: Information of the best latent after shuffling the faces: the chance level.
        latents: Information of the best latent's Intra-W, by model.
        units: Number of units for which a latent is more informative than that feature, by model.
        groups: Share of the most common label in the group of a latent, by model.
        chance: The same share for random groups of faces, by model.
    """

    seed: int
    baseline: float
    shuffled: float
    latents: dict[str, float]
    units: dict[str, int]
    groups: dict[str, float]
    chance: dict[str, float]


def measure(folders: dict[str, Path], baseline: Path, seed: int) -> Meaning:
    """Measure models from the evaluations in their folders."""
    plain = read_evaluation(baseline / "evaluation.pt")
    features = find_best_features(plain.evaluation.embedding, get_intensities(plain))
    best_features = np.array([each.information for each in features])
    found = {name: read_evaluation(folder / "evaluation.pt") for name, folder in folders.items()}
    drawn = {name: each for name, each in found.items() if each.faces.units is not None}
    best = {name: find_best_latents(each, get_intra_weights(each)) for name, each in drawn.items()}
    mixed = np.random.default_rng(seed).permutation(get_intra_weights(drawn["drawn"]))
    return Meaning(
        seed=seed,
        baseline=float(best_features.mean()),
        shuffled=float(find_best_latents(drawn["drawn"], mixed).mean()),
        latents={name: float(each.mean()) for name, each in best.items()},
        units={name: int((each > best_features).sum()) for name, each in best.items()},
        groups={
            name: measure_purity(each, get_intra_weights(each)) for name, each in found.items()
        },
        chance={
            name: measure_purity(
                each, np.random.default_rng(seed).permutation(get_intra_weights(each))
            )
            for name, each in found.items()
        },
    )


def get_intensities(of: StoredEvaluation) -> NDArray[np.float32]:
    """Return the intensities (n, A) of the units of drawn faces."""
    assert of.faces.units is not None
    found: NDArray[np.float32] = of.faces.units.numpy()
    return found


def get_intra_weights(of: StoredEvaluation) -> NDArray[np.float32]:
    """Return Intra-W (n, M)."""
    assert of.evaluation.intra_weights is not None
    return of.evaluation.intra_weights


def find_best_latents(of: StoredEvaluation, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the information of the best latent about each unit (A,)."""
    information = measure_dependence(weights, get_intensities(of), of.evaluation.labels).information
    found: NDArray[np.float64] = np.nanmax(information, axis=0)
    return found


def measure_purity(of: StoredEvaluation, weights: NDArray[np.float32]) -> float:
    """Return the mean share of the most common label in the groups of the latents."""
    groups = np.argsort(-weights, axis=0)[:GROUP_SIZE].T
    labels = of.evaluation.labels[groups]
    return float(np.mean([np.bincount(group).max() / len(group) for group in labels]))


def plan_jobs(seeds: Sequence[int], place: Place) -> list[Job]:
    """Return the jobs of the missing models that `measure_seeds` requires, seed by seed."""
    rows = (LINEAR_DRAWN, *ROWS.values())
    jobs = (Job(row, seed, NAME, is_start=True) for seed in seeds for row in rows)
    return add_missing_starts(
        (
            job
            for job in jobs
            if not (
                run_folder(job.row, place.scale, job.seed, place.runs) / "evaluation.pt"
            ).is_file()
        ),
        place,
    )


def measure_seeds(seeds: Sequence[int], place: Place, folder: Path = RESULTS_FOLDER) -> None:
    """Measure the models of each seed, and print and write the results."""
    found = {each.seed: each for each in read_meanings(place.scale, folder)}
    for seed in seeds:
        folders = {
            name: run_folder(row, place.scale, seed, place.runs) for name, row in ROWS.items()
        }
        baseline = run_folder(LINEAR_DRAWN, place.scale, seed, place.runs)
        found[seed] = measure(folders, baseline, seed)
        print(found[seed], flush=True)
    lines = (json.dumps(round_numbers(asdict(found[seed]), DIGITS)) for seed in sorted(found))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{place.scale}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def read_meanings(scale: str, folder: Path = RESULTS_FOLDER) -> list[Meaning]:
    """Read the measurements of a scale, by seed."""
    path = folder / f"{scale}.jsonl"
    if not path.is_file():
        return []
    return [load(path.name, Meaning, json.loads(line)) for line in path.read_text().splitlines()]
