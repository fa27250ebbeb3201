import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_ten_lines_run() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    output = names["output"]
    assert type(output).__name__ == "FDRLOutput"
    assert output.logits.shape == (4, 7)  # type: ignore[attr-defined]
    assert len([line for line in code.splitlines() if line]) <= 10


def test_the_files_that_it_names_are_there() -> None:
    named = re.findall(r"(?:docs|examples)/[\w/.]+\.(?:svg|py)", README)
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []
