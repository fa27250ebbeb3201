"""The command line: every flag reaches the options, and a preset fills in the rest."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from fer.command import fill_options, make_parser, parse
from fer.model import checkpoint
from fer.options import PRESETS, SYNTHETIC, Options
from fer_ablation import main as ablate
from fer_crossval import main as cross_validate
from fer_rafdb import main as train
from small_runs import options_of

Main = Callable[[list[str]], object]

NO_OPTIONS = ("help", "out")
ACTIONS = [each for each in make_parser("")._actions if each.dest not in NO_OPTIONS]
NEEDED = {
    "dataset": ["--data", "x"],
    "freeze_backbone": ["--imagenet"],
    "focal_gamma": ["--criterion", "focal"],
    "targets": ["--dataset", "ferplus", "--data", "x"],
}
"""What a flag cannot be said without."""
DEFAULTS = {field.name: field.default for field in fields(Options)}


def said_for(action: argparse.Action) -> tuple[list[str], Any]:
    """Return what to say so that an option differs from its default, and what it becomes."""
    flag = action.option_strings[0]
    if isinstance(action, argparse.BooleanOptionalAction):
        return [flag], True
    if action.nargs == 0:
        return [flag], action.const
    if action.choices is not None:
        value = next(each for each in action.choices if each not in said_by_default(action.dest))
        return [flag, str(value)], value
    if action.dest == "classes":
        return [flag, "sad,happy"], ("sad", "happy")
    kinds: dict[Any, Any] = {int: 32 if DEFAULTS[action.dest] == 64 else 64, float: 0.25}
    value = kinds.get(action.type, "x")
    return [flag, str(value)], value


def said_by_default(name: str) -> tuple[Any, Any]:
    return DEFAULTS[name], PRESETS["scratch"].get(name)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.dest)
def test_every_flag_reaches_its_option(action: argparse.Action) -> None:
    said, wanted = said_for(action)
    got = getattr(parse("", [*said, *NEEDED.get(action.dest, [])]).options, action.dest)
    assert got == wanted
    assert got not in said_by_default(action.dest)


def test_every_option_has_a_flag() -> None:
    assert {action.dest for action in ACTIONS} == set(DEFAULTS) - {"fold"}
    assert parse("", ["--fold", "3", "--dataset", "mmi", "--data", "x"]).options.fold == 3


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_what_is_not_said(preset: str) -> None:
    assert not parse("", ["--preset", preset, "--no-small-stem"]).options.small_stem
    options = fill_options({"preset": preset, "lr": 0.5})
    for name, value in PRESETS[preset].items():
        assert getattr(options, name) == (0.5 if name == "lr" else value)


def test_the_paper_preset_is_section_4_2() -> None:
    options = fill_options({"preset": "paper"})
    assert (options.epochs, options.lr, options.schedule) == (40, 1e-4, "steps")
    assert (options.image_size, options.batch_size, options.reduction) == (224, 64, "sum")
    assert (options.num_latents, options.latent_dim, options.delta) == (9, 128, 0.5)
    weights = (options.lambda_compactness, options.lambda_balance, options.lambda_distribution)
    assert weights == (1e-4, 1.0, 1e-4)
    assert (options.weight_decay, options.clip, options.ema) == (0, None, None)


def test_synthetic_faces_are_small_unless_a_preset_is_asked_for() -> None:
    assert fill_options({}).image_size == SYNTHETIC["image_size"]
    assert fill_options({"image_size": 80}).image_size == 80
    assert fill_options({"preset": "scratch"}).image_size == PRESETS["scratch"]["image_size"]
    other = fill_options({"dataset": "rafdb", "data": "x"})
    assert other.image_size == PRESETS["scratch"]["image_size"]


def test_a_run_goes_on_with_its_own_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = options_of(classes=("a", "b"), ema=0.9, fold=2)
    checkpoint.write_json(tmp_path / "config.json", options.to_dict())
    command = parse("", ["--resume", str(tmp_path)])
    assert command.options == options
    assert (command.out, command.resume) == (None, tmp_path)
    checkpoint.write_json(tmp_path / "config.json", options.to_dict() | {"surprise": 1})
    with pytest.raises(SystemExit):
        parse("", ["--resume", str(tmp_path)])
    assert "surprise" in capsys.readouterr().err


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("main", "said", "match"),
    [
        (train, "--resume x --lr 1", "--resume takes everything from the run's folder"),
        (train, "--resume x --out y", "--resume takes everything from the run's folder"),
        (train, "--resume nowhere", "cannot go on with nowhere"),
        (train, "--dataset lfw", "invalid choice: 'lfw'"),
        (train, "--lr fast", "invalid float value: 'fast'"),
        (train, "--dataset folder --data x", "--dataset folder needs --classes"),
        (cross_validate, "", "--dataset must be one of ckplus, mmi, oulu, folder"),
        (cross_validate, "--dataset rafdb --data x", "invalid choice: 'rafdb'"),
        (cross_validate, "--dataset ckplus", "--dataset ckplus needs --data DIR"),
        (cross_validate, "--dataset folder --data x", "--dataset folder needs --classes"),
        (cross_validate, "--dataset ckplus --data x --fold 3", "ambiguous option: --fold"),
        (cross_validate, "--resume x --folds 3", "--resume takes everything from the folder"),
        (cross_validate, "--resume x --out y", "--resume takes everything from the folder"),
        (cross_validate, "--resume nowhere", "cannot go on with nowhere"),
        (ablate, "table2 --no-intra", "table2 decides intra; do not give it"),
        (ablate, "figure4 --head linear", "figure4 decides head"),
        (ablate, "table1b --lambda-balance 0.5", "table1b decides lambda_balance"),
        (ablate, "table2 --seeds 0", "--seeds must be at least 1"),
        (ablate, "table3", "invalid choice: 'table3'"),
        (ablate, "table2 --lr 0", "--lr must be above 0"),
    ],
)
def test_what_makes_no_command_is_refused(
    main: Main, said: str, match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(said.split())
    assert ended.value.code == 2
    assert match in capsys.readouterr().err
