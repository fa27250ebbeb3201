"""The house rules that a machine can read, from the syntax tree of the package."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fdrl_layers"
FILES = sorted(PACKAGE.rglob("*.py"))
FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))

ORDER = (
    *("_precision", "_checks", "_parts", "_exported", "_ranks", "_optional", "_record", "_card"),
    *("hub", "ops", "layers", "head", "convert", "losses", "backbones", "model", "logits_only"),
    *("cam", "intra_spread", "functional", "__init__"),
)
"""From the bottom up: a file imports from the parts before its own, and a folder from itself."""

CONCEPTS = [("", stem) for stem in ("head", "model", "convert", "hub", "cam", "intra_spread")]
CONCEPTS += [("ops", "backend")]
CONCEPTS += [
    (folder, path.stem)
    for folder in ("layers", "losses")
    for path in sorted((PACKAGE / folder).glob("[a-z]*"))
]


def module_of(path: Path) -> str:
    """The dotted name of a file below the package: "layers.decomposition", "__init__"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """All modules imported anywhere in a file, by their dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            assert node.module is not None
            if node.module == "fdrl_layers":
                yield from (f"fdrl_layers.{alias.name}" for alias in node.names)
            else:
                yield node.module


def own_imports(path: Path) -> list[str]:
    """What a file imports from the package, without the package's name."""
    own = "fdrl_layers."
    return [name.removeprefix(own) for name in imports(path) if name.startswith(own)]


@FILE
def test_imports_flow_one_way(path: Path) -> None:
    part = module_of(path).split(".")[0]
    for name in own_imports(path):
        other = name.split(".")[0]
        allowed = ORDER[: ORDER.index(part)]
        inside = other == part in ("ops", "layers", "head", "losses", "backbones")
        assert inside or other in allowed, f"{part} imports {name}"


def test_imports_have_no_cycle() -> None:
    graph = {module_of(path): set(own_imports(path)) for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()


@FILE
def test_the_core_imports_torch_and_the_standard_library(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    allowed = {"fdrl_layers", "torch", *sys.stdlib_module_names}
    if module_of(path).startswith("ops.triton."):
        allowed.add("triton")
    assert roots <= allowed


def test_import_loads_nothing_heavy() -> None:
    heavy = "torchvision timm transformers safetensors huggingface_hub matplotlib sklearn triton"
    code = f"import fdrl_layers, sys; print([m for m in {heavy.split()} if m in sys.modules])"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def loops(tree: ast.AST) -> Iterator[tuple[int, ast.expr | None]]:
    """Line and iterable of every loop and comprehension; a `while` has no iterable."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For):
            yield node.lineno, node.iter
        elif isinstance(node, ast.comprehension):
            yield node.iter.lineno, node.iter
        elif isinstance(node, ast.While):
            yield node.lineno, None


def is_known_from_the_source(iterable: ast.expr | None) -> bool:
    """Whether a loop runs over things written out in the source: a tuple, or axes named in text."""
    if isinstance(iterable, ast.Call) and ast.unparse(iterable.func) == "zip":
        return is_known_from_the_source(iterable.args[0])
    if isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Attribute):
        return iterable.func.attr == "split" and not iterable.args
    return isinstance(iterable, ast.Tuple)


VECTORIZED = [
    path for room in ("layers", "ops/reference", "head") for path in PACKAGE.glob(f"{room}/*.py")
]


@pytest.mark.parametrize("path", sorted(VECTORIZED), ids=lambda path: path.name)
def test_no_loop_over_latents(path: Path) -> None:
    # A loop over M would need M at run time. Every loop in these files must run over what the
    # source itself lists. That the number of operators does not depend on M either,
    # `test_every_layer.py` counts.
    tree = ast.parse(path.read_text())
    for line, iterable in loops(tree):
        assert is_known_from_the_source(iterable), f"{path.name}, line {line}"
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    forbidden = {"map", "range", "ModuleList", "unbind", "vectorize"}
    assert not forbidden & (names | attributes)


@pytest.mark.parametrize(
    "source",
    [
        "for j in range(m): pass",
        "for latent in latents: pass",
        "[f(x) for x in torch.unbind(latents)]",
        "for part in latents.split(1): pass",
        "for a, b in zip(latents, weight): pass",
        "while j < m: pass",
    ],
)
def test_the_check_of_loops_can_fail(source: str) -> None:
    assert not all(is_known_from_the_source(it) for _, it in loops(ast.parse(source)))


@pytest.mark.parametrize(("folder", "stem"), CONCEPTS, ids=str)
def test_one_stem_names_the_file_the_test_and_the_page(folder: str, stem: str) -> None:
    test = ROOT / "tests" / folder / f"test_{stem}.py"
    page = ROOT / "docs" / "api" / f"{stem}.md"
    assert test.is_file(), f"{test.relative_to(ROOT)} is missing"
    assert page.is_file(), f"{page.relative_to(ROOT)} is missing"
    listed = (ROOT / "docs" / "api" / "index.md").read_text().splitlines()
    assert stem in listed, f"docs/api/index.md does not list {stem}"
