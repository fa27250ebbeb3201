"""The public names: none vanishes or changes unseen, and each documents itself.

`api.json` holds the names with their signatures. After an intended change, write it anew with
`python tests/test_api.py`, and say in the change log what changed.
"""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

import fdrl_layers
from fdrl_layers import convert, functional

SNAPSHOT = Path(__file__).with_name("api.json")

PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (fdrl_layers, functional, convert)
    for name in module.__all__
    if callable(getattr(module, name))
}

RECORDS = [
    f"fdrl_layers.{name}"
    for name in ("BackendChoice", "FDRLOutput", "FDRLLossOutput", "IntraSpread")
]
WRAPPERS = ("fdrl_layers.FDRLModel", "fdrl_layers.LogitsOnly")
SWITCHES = ("fdrl_layers.use_backend",)
MODULES = [name for name, thing in PUBLIC.items() if inspect.isclass(thing) and name not in RECORDS]


def api() -> dict[str, dict[str, str]]:
    """All public names with what one must know to call them."""
    return {module.__name__: signatures(module) for module in (fdrl_layers, functional, convert)}


def signatures(module: ModuleType) -> dict[str, str]:
    found = {}
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        found[name] = signature(thing) if callable(thing) else type(thing).__name__
        if inspect.isclass(thing) and issubclass(thing, nn.Module):
            found[f"{name}.forward"] = signature(thing.forward)
    return found


def signature(thing: Callable[..., Any]) -> str:
    """A signature without the files that its types stand in, for those may move."""
    return re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", str(inspect.signature(thing)))


def sections(name: str) -> dict[str, str]:
    """The sections of a docstring by their headings; what comes before them under ""."""
    doc = inspect.cleandoc(PUBLIC[name].__doc__ or "")
    parts = re.split(r"^(\w+):(?: *)$", doc, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(section: str) -> list[str]:
    """The names that an Args or Attributes section explains."""
    return re.findall(r"^    (\w+): ", section, flags=re.MULTILINE)


def test_names_and_signatures_are_those_of_the_snapshot() -> None:
    assert api() == json.loads(SNAPSHOT.read_text()), (
        "the public API differs from tests/api.json; if that is meant, write it anew with "
        "`python tests/test_api.py` and say in CHANGELOG.md what changed"
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_is_complete(name: str) -> None:
    found, parameters = sections(name), list(inspect.signature(PUBLIC[name]).parameters)
    first, _, rest = found[""].partition("\n")
    assert re.fullmatch(r"[A-Z].*[.]", first)
    assert rest == "" or rest.startswith("\n")
    if name in RECORDS:
        assert entries(found["Attributes"]) == parameters
        return
    wanted = {"Args", "Raises", "Example"}
    wanted |= {"Note"} if name in SWITCHES else {"Shape", "Reference"}
    if name not in (*MODULES, *SWITCHES):
        wanted.add("Returns")
    assert wanted <= found.keys()
    assert entries(found["Args"]) == parameters
    module, _, short = name.rpartition(".")
    assert re.search(rf">>> from {re.escape(module)} import .*\b{short}\b", found["Example"])


@pytest.mark.parametrize("name", [name for name in MODULES if name not in WRAPPERS])
def test_docstring_names_the_function_behind_the_module(name: str) -> None:
    twin = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=FDRL)(?=[A-Z])", "_", name.rpartition(".")[2]).lower()
    assert twin in functional.__all__
    assert f"`fdrl_layers.functional.{twin}`" in (PUBLIC[name].__doc__ or "")


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(api(), indent=2) + "\n")
