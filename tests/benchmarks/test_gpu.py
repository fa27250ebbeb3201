"""The command for a machine with a GPU: its parts end, fail and are left out as it says."""

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from benchmarks import gpu, kernels, parts
from benchmarks.__main__ import NAMES, main
from benchmarks.machine import describe
from benchmarks.parts import Outcome, Part, format_table, python_command, run_all, select_parts
from devices import OF_KERNELS, marks_of

# Starts a process of its own and waits; each says who it is.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid, flush=True)
{wait}
"""
SLEEP = "time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {SLEEP}"


def stub(name: str, code: str, seconds: float = 30.0, figure: str = r"figure (.*)") -> Part:
    return Part(name, python_command("-c", code), seconds, figure)


def ends(pid: int, within: float = 5.0) -> bool:
    """Whether a process is gone, or about to be: its parent may not have waited for it yet."""
    until = time.perf_counter() + within
    while time.perf_counter() < until:
        status = Path(f"/proc/{pid}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.05)
    return False


def children_of(log: Path) -> list[int]:
    return [int(pid) for pid in re.findall(r"^child (\d+)$", log.read_text(), re.MULTILINE)]


def test_it_goes_on_when_a_part_fails_and_says_why_others_did_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "deep" / "gpu.log"
    wrong = stub("wrong", "print('figure 7 of 9'); print('this is why'); raise SystemExit(3)")
    right = stub("right", "print('figure 1'); print('figure   9 of 9')")
    lacking = Part(
        "lacking", python_command("-c", ""), 9, "", obstacle=lambda: "sonar is not installed"
    )
    every = (wrong, right, stub("other", ""), lacking)
    outcomes = run_all(every, ["wrong", "right", "lacking"], log)
    assert [(each.status, each.figure, each.failed) for each in outcomes] == [
        ("failed: exit status 3", "7 of 9", True),
        ("passed", "9 of 9", False),
        ("not run: not asked for", "", False),
        ("not run: sonar is not installed", "", False),
    ]
    # What it said is shown where it failed, and kept in any case.
    assert "  this is why" in capsys.readouterr().out
    assert "figure   9 of 9" in log.read_text()


@pytest.mark.parametrize("wait", [SLEEP, STUBBORN], ids=["sleeping", "stubborn"])
def test_a_part_and_what_it_started_end_in_time(
    wait: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "GRACE", 0.5)
    log = tmp_path / "gpu.log"
    began = time.perf_counter()
    slow = stub("slow", f"print('figure early', flush=True)\n{PARENT.format(wait=wait)}", 2.0)
    hasty = stub("hasty", f"print('figure 2', flush=True)\n{PARENT.format(wait='')}")
    late, left = run_all((slow, hasty), ["slow", "hasty"], log)
    assert time.perf_counter() - began < 6
    assert (late.status, late.figure, late.failed) == ("time limit of 2 s", "early", True)
    assert 1.4 < late.seconds < 4
    assert (left.status, left.figure) == ("passed", "2")
    assert [ends(child) for child in children_of(log)] == [True, True]


def test_a_part_that_is_interrupted_may_sum_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough for Python to start on a machine that is busy.
    monkeypatch.setattr(parts, "GRACE", 3.0)
    wait = "try:\n  time.sleep(60)\nexcept KeyboardInterrupt:\n  print('figure so far')"
    slow = stub("slow", f"import time\n{wait}", 9.0)
    (outcome,) = run_all((slow,), ["slow"], tmp_path / "gpu.log")
    assert (outcome.figure, outcome.failed) == ("so far", True)


def test_sigterm_ends_the_part_and_still_sums_up(tmp_path: Path) -> None:
    log = tmp_path / "gpu.log"
    code = f"""
import pathlib, sys
sys.path.insert(0, {str(parts.ROOT)!r})
from benchmarks.parts import Part, format_table, python_command, run_all
slow = Part("slow", python_command("-c", {PARENT.format(wait=SLEEP)!r}), 50, "")
print(format_table(run_all((slow, slow), ["slow"], pathlib.Path({str(log)!r}))))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while not log.is_file() or not children_of(log):
        time.sleep(0.05)
        assert process.poll() is None
    process.terminate()
    said, _ = process.communicate(timeout=20)
    told = [line.split("  ")[1].strip() for line in said.splitlines()[-2:]]
    assert told == ["stopped", "not run: stopped"]
    assert all(map(ends, children_of(log)))


def test_only_what_is_asked_for() -> None:
    named = [stub(name, "") for name in ("tests", "operators-a", "operators-b")]
    assert select_parts(named, None) == ["tests", "operators-a", "operators-b"]
    assert select_parts(named, "operators,tests") == ["operators-a", "operators-b", "tests"]
    assert select_parts(named, "operators-b") == ["operators-b"]
    for unknown in ("operator", "tests,other"):
        with pytest.raises(ValueError, match=r"there is no part o.*there are tests, operators-a"):
            select_parts(named, unknown)


def test_the_table_has_a_line_for_each_part() -> None:
    outcomes = [Outcome("a", "passed", 61.4, "9 of 9"), Outcome("long", "not run: stopped")]
    assert format_table(outcomes).splitlines() == [
        "part  outcome           s   figure",
        "a     passed            61  9 of 9",
        "long  not run: stopped",
    ]


def test_all_parts_together_end_in_under_nine_minutes(tmp_path: Path) -> None:
    everything = gpu.make_parts(tmp_path)
    assert sum(part.seconds for part in everything) <= 525
    assert len({part.name for part in everything}) == len(everything)
    for part in everything:
        assert not any(word.endswith(".py") for word in part.command)
        if "benchmarks" in part.command:
            assert part.command[part.command.index("benchmarks") + 1] in NAMES


def test_timed_parts_can_be_told_what_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import operators, throughput, whole_step

    # What comes first once all has been parsed.
    monkeypatch.setattr(torch, "set_num_threads", Mock(side_effect=InterruptedError))
    mains = {"operators": operators, "throughput": throughput, "whole-step": whole_step}
    told = 0
    for part in gpu.make_parts(tmp_path):
        name = part.command[3] if part.command[1:3] == ("-m", "benchmarks") else ""
        if name in mains:
            with pytest.raises(InterruptedError):
                mains[name].main([*part.command[4:]])
            assert part.command[-1] == str(tmp_path)
            told += 1
    assert told >= 4


def test_without_a_gpu_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path), "--only", "kernels,operators"]) == 1
    said = capsys.readouterr().out
    assert said.count("not run: no CUDA device") == 3
    assert said.count("not run: not asked for") == len(gpu.make_parts(tmp_path)) - 3
    assert "no GPU; torch" in said
    assert said.splitlines()[1:3] == (tmp_path / "gpu.log").read_text().splitlines()[1:3]
    with pytest.raises(SystemExit):
        gpu.main(["--only", "kernel"])
    assert "there is no part kernel" in capsys.readouterr().err


def test_what_is_not_installed_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "describe", lambda _: describe())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tqdm" else name)
    said = ["--out", str(tmp_path), "--only", "sanitizer,throughput"]
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    # Nothing was wrong with what ran.
    assert gpu.main(said) == 0
    told = capsys.readouterr().out
    assert told.count("not run: not installed: tqdm\n") == 2
    assert told.count("not run: not installed: compute-sanitizer\n") == 2


def test_figures_are_found_in_what_parts_say(tmp_path: Path) -> None:
    told = {
        "tests": ("== 2 failed, 118 passed in 61.20s ==", "2 failed, 118 passed"),
        "kernels": (
            "float16, N = 64: agrees\n12 of 12 agree with the loop in float64\n",
            "12 of 12 agree with the loop in float64",
        ),
        "sanitizer-memcheck": ("========= ERROR SUMMARY: 0 errors\n", "0 errors"),
        "operators-float32": (
            "training, N = 64\n  loop  9 us\n  triton  5 us\n  triton graph  1 us\n"
            "training, N = 1024\n  triton  8 us\n",
            "triton 5 us",
        ),
        "throughput": (
            "224 pixels: 9 images/s, 1.0 % waiting; data alone 5 images/s\n",
            "224 pixels: 9 images/s, 1.0 % waiting",
        ),
        "whole-step": (
            "loop adds 3.00 % to 9.0 ms\nours adds 1.00 % to 9.0 ms\n",
            "ours adds 1.00 % to 9.0 ms",
        ),
    }
    speaking = [
        replace(
            part,
            command=python_command("-c", f"print({told[part.name][0]!r})"),
            obstacle=lambda: None,
        )
        for part in gpu.make_parts(tmp_path)
        if part.name in told
    ]
    outcomes = run_all(speaking, list(told), tmp_path / "gpu.log")
    assert {each.part: each.figure for each in outcomes} == {k: v[1] for k, v in told.items()}


@pytest.mark.parametrize("device", [pytest.param(OF_KERNELS, marks=marks_of(OF_KERNELS))])
def test_kernels_are_held_against_the_loop(
    device: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    said = ["--smallest", "--device", device]
    assert kernels.main(said) == 0
    assert capsys.readouterr().out.endswith("3 of 3 agree with the loop in float64\n")
    monkeypatch.setattr(kernels, "find_disagreement", lambda *_: "d input: off")
    assert kernels.main(said) == 1
    assert "bfloat16, N = 5: d input: off" in capsys.readouterr().out


def test_the_command_knows_its_benchmarks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        assert f"usage: python -m benchmarks {name} " in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert main(["operator"]) == main([]) == main() == 2
    said = capsys.readouterr().err
    assert all(said.count(f"benchmarks {name} ") == 3 for name in NAMES)
