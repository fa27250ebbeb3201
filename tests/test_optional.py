import json
from pathlib import Path

import pytest

from fdrl_layers._optional import optional


def test_imports_what_is_there() -> None:
    assert optional("json", "any", "this") is json


def test_names_the_extra_of_what_is_not() -> None:
    match = r'this needs nowhere_to_find, .*: pip install "fdrl-layers\[any\]"'
    with pytest.raises(ImportError, match=match) as caught:
        optional("nowhere_to_find.part", "any", "this")
    assert caught.value.name == "nowhere_to_find"


def test_says_what_a_library_lacks_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("import nowhere_to_find")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere_to_find'"):
        optional("broken_library", "any", "this")
