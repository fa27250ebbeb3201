"""The files under results/: dataclasses, written as JSON and read back strictly.

Files of format 1 are read too. What they call "loop" was the loop over branches and classes that
the tests hold everything against; it is "oracle loop" now, and "loop" is the baseline since then.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.machine import Machine

Kind = TypeVar("Kind")
FORMAT = 2
FIRST = 1
"""The format in which operators had no time of the GPU."""
ORACLE = "oracle loop"
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Measured:
    """One version at one batch size. Triples are the 20th, 50th and 80th percentile.

    Attributes:
        version: Its name in the registry.
        batch: Number N of samples.
        seconds: Of a step; empty where it was refused.
        times_faster: Than the run's baseline, within the same round; empty without one.
        over_floor: Its time over that of the matrix products alone; empty without them.
        over_roofline: Its median over the least time of its bytes and operations.
        kernels: Launched in a step, as PyTorch dispatches; 0 where they were not counted.
        saved: Bytes a sample kept for backward, beside input and parameters; 0 if not counted.
        peak: Bytes of device memory at most; 0 on a CPU.
        compile_seconds: Of the first step, where it is compiled; 0 elsewhere.
        busy: Seconds of a step in which the GPU works; 0 on a CPU.
        gpu_kernels: That the GPU runs in a step; 0 on a CPU.
        refused: Where it disagrees with the loop; empty where it agrees.
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
    """A run of the operators' benchmark.

    Attributes:
        mode: "training" or "inference".
        dtype: Type of features and parameters.
        rounds: Number of paired rounds.
        baseline: The version that the others are compared with.
        machine: What it ran on.
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
    """A training step of a whole network with one head or another.

    Attributes:
        backbone: Its name.
        image_size: Side of the images.
        batch: Number of images.
        dtype: Type of the products.
        rounds: Number of paired rounds.
        graph: Whether a step is one CUDA graph.
        machine: What it ran on.
        seconds: Percentiles of a step with each head.
        added: Percentiles of what each head adds to the step with a linear layer, in percent.
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
    """How fast faces go through at one size. Triples are the 20th, 50th and 80th percentile.

    Attributes:
        image_size: Side of the crops.
        training: Images a second that are trained on.
        waiting: Share of that time in which the training waits for data.
        data: Images a second that the data path makes by itself.
        recipe_seconds: That 40 epochs of 12,271 images would take; 0 where it was not asked for.
    """

    image_size: int
    training: tuple[float, ...]
    waiting: tuple[float, ...]
    data: tuple[float, ...]
    recipe_seconds: float


@dataclass(frozen=True)
class Throughput:
    """How fast the examples train.

    Attributes:
        model: Backbone and head.
        batch: Number of images.
        dtype: Type of the products.
        settings: Of the run, where they matter for speed.
        rounds: Number of epochs that were timed.
        machine: What it ran on.
        speeds: One for each size of the crops.
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
    """Write results, numbers rounded to what they mean."""
    content = {"format": FORMAT, "kind": type(results).__name__, **dataclasses.asdict(results)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(content), indent=1) + "\n")


def rounded(value: Any, digits: int = 4) -> Any:
    """Return nested values with numbers of so many digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(each, digits) for key, each in value.items()}
    return [rounded(each, digits) for each in value] if isinstance(value, list | tuple) else value


def read(path: Path) -> Kinds:
    """Read results, and raise where a file is not what this module writes."""
    content = content_of(path, known=(FIRST, FORMAT))
    kind = content.pop("kind", None)
    if kind not in ("Results", "WholeStep", "Throughput"):
        raise ValueError(
            f"{path.name}: `kind` must be Results, WholeStep or Throughput, got {kind!r}"
        )
    if content.pop("format") == FIRST:
        _bring_up(content, kind)
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


def content_of(path: Path, known: tuple[int, ...]) -> dict[str, Any]:
    """Return what a file of a known format holds, its machine as such."""
    return check_content(path.name, json.loads(path.read_text()), known)


def check_content(where: str, content: dict[str, Any], known: tuple[int, ...]) -> dict[str, Any]:
    """Return content of a known format, its machine as such."""
    if content.get("format") not in known:
        raise ValueError(f"{where}: `format` must be {' or '.join(map(str, known))}")
    return content | {"machine": load(where, Machine, content.get("machine"))}


def _bring_up(content: dict[str, Any], kind: str) -> None:
    """Name the baseline of format 1 for what it was, and say that the GPU's time is unknown."""
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
    """Return a dataclass of what a file holds, and raise where names or plain types are others."""
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
