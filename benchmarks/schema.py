"""The files under results/: dataclasses that are written as JSON and validated when read.

Files of format 1 are supported too. Their "loop" is the loop over branches and classes that the
tests use as their reference. It is now called "oracle loop", and "loop" names the baseline.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.machine import Machine

Kind = TypeVar("Kind")
FORMAT = 2
FORMAT_1 = 1
"""The format without the GPU's time in the operators' results."""
ORACLE = "oracle loop"
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Measured:
    """One version at one batch size. Triples are the 20th, 50th and 80th percentile.

    Attributes:
        version: Its name in the registry.
        batch: Number N of samples.
        seconds: Time of a step; empty if the version was refused.
        times_faster: Speedup over the run's baseline in the same round; empty without one.
        over_floor: Its time divided by that of the matrix products alone; empty without them.
        over_roofline: Its median time divided by the minimum time of its bytes and operations.
        kernels: Kernels per step, as PyTorch dispatches them; 0 if not counted.
        saved: Bytes per sample saved for backward, without input and parameters; 0 if not counted.
        peak: Peak device memory in bytes; 0 on a CPU.
        compile_seconds: Time of the first step if it is compiled; otherwise 0.
        busy: Seconds per step for which the GPU is busy; 0 on a CPU.
        gpu_kernels: Kernels that the GPU runs per step; 0 on a CPU.
        refused: Where the version disagrees with the loop; empty if it agrees.
    """

    version: str
    batch: int
    seconds: tuple[float, ...]
    times_faster: tuple[float, ...]
    over_floor: tuple[float, ...]
    over_roofline: float
    kernels: int
    saved: float
    peak: int
    compile_seconds: float
    busy: float
    gpu_kernels: int
    refused: str


@dataclass(frozen=True)
class Results:
    """A run of the operators benchmark.

    Attributes:
        mode: "training" or "inference".
        dtype: Type of features and parameters.
        rounds: Number of paired rounds.
        baseline: The version with which the others are compared.
        machine: The machine of the run.
        measured: A row for each version and batch size.
    """

    mode: str
    dtype: str
    rounds: int
    baseline: str
    machine: Machine
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class WholeStep:
    """A training step of a whole network with each of several heads.

    Attributes:
        backbone: Its name.
        image_size: Width and height of the images.
        batch: Number of images.
        dtype: Type of the matrix products.
        rounds: Number of paired rounds.
        graph: Whether a step is one CUDA graph.
        machine: The machine of the run.
        seconds: Percentiles of the time of a step with each head.
        added: Percentiles of the time each head adds to a step with a linear layer, in percent.
    """

    backbone: str
    image_size: int
    batch: int
    dtype: str
    rounds: int
    graph: bool
    machine: Machine
    seconds: dict[str, tuple[float, ...]]
    added: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Speed:
    """Throughput at one image size. Triples are the 20th, 50th and 80th percentile.

    Attributes:
        image_size: Width and height of the crops.
        training: Training images per second.
        waiting: Share of the training time spent waiting for data.
        data: Images per second of the data path without a model.
        recipe_seconds: Time for 40 epochs of 12,271 images; 0 if not computed.
    """

    image_size: int
    training: tuple[float, ...]
    waiting: tuple[float, ...]
    data: tuple[float, ...]
    recipe_seconds: float


@dataclass(frozen=True)
class Throughput:
    """The training throughput of the examples.

    Attributes:
        model: Backbone and head.
        batch: Number of images.
        dtype: Type of the matrix products.
        settings: The settings of the run that affect the speed.
        rounds: Number of timed epochs.
        machine: The machine of the run.
        speeds: One entry for each size of the crops.
    """

    model: str
    batch: int
    dtype: str
    settings: str
    rounds: int
    machine: Machine
    speeds: tuple[Speed, ...]


Kinds = Results | WholeStep | Throughput


def write(path: Path, results: Kinds) -> None:
    """Write results with rounded numbers."""
    content = {"format": FORMAT, "kind": type(results).__name__, **dataclasses.asdict(results)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(round_numbers(content), indent=1) + "\n")


def round_numbers(value: Any, digits: int = 4) -> Any:
    """Return nested values with numbers rounded to `digits` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: round_numbers(each, digits) for key, each in value.items()}
    return (
        [round_numbers(each, digits) for each in value]
        if isinstance(value, list | tuple)
        else value
    )


def read(path: Path) -> Kinds:
    """Read results, and raise `ValueError` if the file does not follow this module's format."""
    content = read_content(path, known=(FORMAT_1, FORMAT))
    kind = content.pop("kind", None)
    if kind not in ("Results", "WholeStep", "Throughput"):
        raise ValueError(
            f"{path.name}: `kind` must be Results, WholeStep or Throughput, got {kind!r}"
        )
    if content.pop("format") == FORMAT_1:
        _upgrade(content, kind)
    if kind == "WholeStep":
        content.setdefault("graph", False)
        return load(path.name, WholeStep, content)
    if kind == "Throughput":
        content["speeds"] = _load_all(path, Speed, content, "speeds")
        throughput = load(path.name, Throughput, content)
        _check_speeds(path, throughput)
        return throughput
    content["measured"] = _load_all(path, Measured, content, "measured")
    found = load(path.name, Results, content)
    _check(path, found)
    return found


def read_content(path: Path, known: tuple[int, ...]) -> dict[str, Any]:
    """Return the content of a file of a known format, with its machine as a `Machine`."""
    return check_content(path.name, json.loads(path.read_text()), known)


def check_content(where: str, content: dict[str, Any], known: tuple[int, ...]) -> dict[str, Any]:
    """Return content of a known format, with its machine as a `Machine`."""
    if content.get("format") not in known:
        raise ValueError(f"{where}: `format` must be {' or '.join(map(str, known))}")
    return content | {"machine": load(where, Machine, content.get("machine"))}


def _upgrade(content: dict[str, Any], kind: str) -> None:
    """Rename the baseline of format 1 to "oracle loop" and set the unknown GPU time to 0."""
    if kind == "Results":
        content.setdefault("baseline", ORACLE)
        for row in content.get("measured", ()):
            row |= {"busy": 0.0, "gpu_kernels": 0}
            row["version"] = row["version"].replace("loop", ORACLE)
    elif kind == "WholeStep":
        for name in ("seconds", "added"):
            content[name] = {
                head.replace("loop", ORACLE): found for head, found in content[name].items()
            }


def _load_all(path: Path, kind: type[Kind], content: Any, name: str) -> tuple[Kind, ...]:
    rows = content.get(name)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path.name}: `{name}` must be a list that is not empty")
    return tuple(load(path.name, kind, row) for row in rows)


def load(where: str, kind: type[Kind], content: Any) -> Kind:
    """Return a dataclass from a file's content; raise if names or plain types do not match."""
    names = {field.name: field.type for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(content, dict) or content.keys() != names.keys():
        given = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{where}: {kind.__name__} wants {sorted(names)}, got {given}")
    simple = {str: str, int: int, float: (int, float)}
    for name, annotation in names.items():
        wanted: Any = simple.get(annotation) if isinstance(annotation, type) else None
        if wanted is not None and not isinstance(content[name], wanted):
            raise ValueError(f"{where}: `{name}` must be {annotation}, got {content[name]!r}")
    return kind(**content)


def _check(path: Path, results: Results) -> None:
    if results.mode not in ("training", "inference"):
        raise ValueError(f"{path.name}: `mode` must be training or inference, got {results.mode!r}")
    for row in results.measured:
        triple = len(row.seconds) == 3 and all(value > 0 for value in row.seconds)
        if bool(row.refused) == triple:
            raise ValueError(f"{path.name}: {row.version} is either timed or refused")
        if triple and sorted(row.seconds) != list(row.seconds):
            raise ValueError(f"{path.name}: {row.version}'s percentiles must rise")


def _check_speeds(path: Path, throughput: Throughput) -> None:
    for speed in throughput.speeds:
        for name in ("training", "waiting", "data"):
            triple = list(getattr(speed, name))
            if len(triple) != 3 or sorted(triple) != triple or triple[0] < 0:
                raise ValueError(f"{path.name}: `{name}` must be percentiles that rise")
        if speed.waiting[2] > 1:
            raise ValueError(f"{path.name}: `waiting` must be a share, got {speed.waiting[2]}")
