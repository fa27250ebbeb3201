"""All studies of FDRL on real faces: their questions and the rows of settings that answer them.

A row with the same settings in two studies is trained once for both.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.studies.plan import Row, Study
from fer.options import PRESETS

LINEAR = Row("linear", {"head": "linear"})
LINEAR_AGAIN = Row("linear", {"head": "linear"}, LINEAR)
FDRL = Row("FDRL")
AS_PRINTED = Row("FDRL as printed", {"reduction": "sum"})

DRAWN_FACES = {"dataset": "synthetic", "faces": 12_800}
LINEAR_DRAWN = Row("linear, drawn faces", {"head": "linear", **DRAWN_FACES})

HALF = {"epochs": 20}
"""Half of the epochs of the scale for a GPU."""
LONG = {"epochs": 12}
FEW = {"limit": 2560, "epochs": 40}
NORM = {"batch_norm": True}
WARM_UP = {"balance_warmup": 0.5}
FROZEN = {"center_update": "frozen"}
MESSAGES = {"self_feature": "message"}
FINE = {"last_stride": 1}
LINEAR_FINE = Row("linear, finer maps", {"head": "linear", **FINE})

_OF_THE_SCALE = ("image_size", "lr", "schedule", "reduction")
STRONG: Mapping[str, Any] = {
    **{name: value for name, value in PRESETS["strong"].items() if name not in _OF_THE_SCALE},
    "preset": "strong",
    **LONG,
}

CENTER_WEIGHTS = (0.0, 1e-5, 1e-3, 1e-2, 1e-1)
"""The grid of the paper's table 1 without the paper's choice, 0.0001, plus one larger value."""
BALANCE_WEIGHTS = (0.0, 0.001, 0.01, 0.1, 1.0)


def make_balance_rows(start: Row | None = None) -> tuple[Row, ...]:
    """Return a row for each reduction and balance-loss weight, optionally starting from a row."""
    return tuple(
        Row(
            f"{reduction}, λ2 = {weight:g}",
            {"reduction": reduction, "lambda_balance": weight},
            start,
        )
        for reduction in ("sum", "mean", "share")
        for weight in BALANCE_WEIGHTS
    )


def make_gate_rows(start: Row | None = None) -> tuple[Row, ...]:
    """Return a row for each reduction and gate initialization, optionally starting from a row."""
    return tuple(
        Row(f"{reduction}, {label}", {"reduction": reduction, **overrides}, start)
        for reduction in ("sum", "mean", "share")
        for label, overrides in (
            ("gates at 1 / 2", {}),
            ("Intra-W at 1 / M", {"gate_init": "uniform"}),
        )
    )


def make_varied_intra_rows(start: Row | None = None) -> tuple[Row, ...]:
    """Return a row for each attempt to make Intra-W differ between faces."""
    return (
        *(Row(f"λ2 = {w:g}", {"lambda_balance": w}, start) for w in (0.1, 0.01, 0.0)),
        Row("peaked faces, 0.1", {"lambda_peak": 0.1}, start),
        *(Row(f"classes apart, {w:g}", {"lambda_apart": w}, start) for w in (0.01, 0.1)),
    )


def make_baseline_row(label: str, **overrides: object) -> Row:
    """Return the baseline with another recipe."""
    return Row(label, {**LINEAR.overrides, **overrides})


def make_head_row(label: str, **overrides: object) -> Row:
    """Return a head that is trained alone on the features of the baseline's frozen backbone."""
    return Row(label, {"freeze_backbone": True, **overrides}, LINEAR)


STUDIES = (
    Study(
        "full",
        "Is FDRL level with its baseline at full size?",
        (
            *(Row(row.label, {**row.overrides, **HALF}) for row in (LINEAR, FDRL, AS_PRINTED)),
            Row("FDRL, attention of each latent", {"attach": "attention", **HALF}),
        ),
        notes="A ResNet-18 from random weights; for --scale gpu, with half of its epochs.",
    ),
    Study(
        "recipe",
        "Which recipe suits the baseline?",
        (
            LINEAR,
            *(make_baseline_row(f"rate {rate:g}", lr=rate) for rate in (1e-3, 2e-3, 5e-3, 1e-2)),
            *(make_baseline_row(f"weight decay {w:g}", weight_decay=w) for w in (0.0, 0.05)),
            *(make_baseline_row(f"label smoothing {s:g}", label_smoothing=s) for s in (0.0, 0.1)),
            make_baseline_row("no average of weights", ema=None),
            make_baseline_row("average of weights", ema=0.99),
            *(
                make_baseline_row(f"{name} augmentation", augment=name)
                for name in ("paper", "strong")
            ),
            *(
                make_baseline_row(f"{stem} stem", small_stem=stem == "small")
                for stem in ("small", "large")
            ),
        ),
        notes="The recipe in plan.py is chosen by the valid column.",
    ),
    Study(
        "baseline",
        "Does the head help?",
        (LINEAR, FDRL, AS_PRINTED),
        by_class=("FDRL",),
        notes="The paper's baseline against FDRL, with the sum of equation 4 and with a mean.",
    ),
    Study(
        "parts",
        "What does each part add (table 2)?",
        (
            LINEAR,
            Row("+ FDN", {"intra": False, "inter": False}),
            Row("+ FDN + Inter-RM", {"intra": False}),
            Row("+ FDN + Intra-RM", {"inter": False}),
            FDRL,
        ),
        notes="Each part is left out as the paper's table 2 has it.",
    ),
    Study(
        "longer",
        "Does it change when they train for longer?",
        (
            Row("linear", {"head": "linear", **LONG}),
            Row("FDRL", LONG),
            Row("linear, strong", {"head": "linear", **STRONG}),
            Row("FDRL, strong", STRONG),
            Row("linear, strong, on a trained backbone", {"head": "linear", **STRONG}, LINEAR),
            Row("FDRL, strong, on a trained backbone", STRONG, LINEAR),
        ),
        notes="Twelve epochs, also with what --preset strong adds; for --scale cpu.",
    ),
    Study(
        "few",
        "Does it help where faces are few?",
        (
            Row("linear", {"head": "linear", **FEW}),
            Row("plain", {"head": "plain", **FEW}),
            Row("FDRL", FEW),
            Row("FDRL as printed", {"reduction": "sum", **FEW}),
            Row("linear, after drawn faces", {"head": "linear", **FEW}, LINEAR_DRAWN),
            Row("plain, after drawn faces", {"head": "plain", **FEW}, LINEAR_DRAWN),
            Row("FDRL, after drawn faces", FEW, LINEAR_DRAWN),
        ),
        notes="2,560 training faces, the same for every seed, each seen forty times.",
    ),
    Study(
        "reduction",
        "Is Intra-W a sum, a mean or a share?",
        (LINEAR, *make_balance_rows()),
        notes="And how heavy is the balance loss to be? From random weights.",
    ),
    Study(
        "stages",
        "Does the head help on a trained backbone?",
        (
            LINEAR_AGAIN,
            Row("plain", {"head": "plain"}, LINEAR),
            *make_balance_rows(LINEAR),
            Row("mean, λ2 = 1, attention", {"attach": "attention"}, LINEAR),
            Row("mean, λ2 = 1, places", {"attach": "places"}, LINEAR),
            Row("linear, a fifth of the rate", {"head": "linear", "lr": 1e-3}, LINEAR),
            Row("mean, λ2 = 1, a fifth of the rate", {"lr": 1e-3}, LINEAR),
        ),
        by_class=("mean, λ2 = 1",),
        notes="Each row starts from the backbone that the baseline of its seed has trained.",
    ),
    Study("gates", "Where are the gates of Intra-W to start?", (LINEAR, *make_gate_rows())),
    Study(
        "gates_trained",
        "Where are the gates of Intra-W to start on a trained backbone?",
        (LINEAR_AGAIN, *make_gate_rows(LINEAR)),
    ),
    Study(
        "features",
        "What do heads make of the same features?",
        (
            make_head_row("linear", head="linear"),
            make_head_row("plain, as many parameters", head="plain"),
            make_head_row("+ FDN", intra=False, inter=False),
            make_head_row("FDRL"),
            make_head_row("FDRL, share", reduction="share"),
            make_head_row("FDRL as printed", reduction="sum"),
            make_head_row("FDRL, λ2 = 0", lambda_balance=0.0),
        ),
        notes="A head alone learns, on the baseline's backbone, which stays as it is.",
    ),
    Study(
        "centers",
        "How are centers to move, and how heavy are λ1 and λ3 to be?",
        (
            FDRL,
            Row("moving average", {"center_update": "ema"}),
            Row("gradient", {"center_update": "gradient"}),
            *(Row(f"λ1 = {w:g}", {"lambda_compactness": w}) for w in CENTER_WEIGHTS),
            *(Row(f"λ3 = {w:g}", {"lambda_distribution": w}) for w in CENTER_WEIGHTS),
        ),
        baseline="FDRL",
        notes="FDRL itself has the alpha rule, and the paper's 0.0001 for both weights.",
    ),
    Study(
        "latents",
        "How many latents (figure 4)?",
        tuple(
            FDRL if m == 9 else Row(f"M = {m}", {"num_latents": m}) for m in (1, 3, 5, 7, 9, 11, 16)
        ),
        baseline="FDRL",
    ),
    Study(
        "departures",
        "What do the departures of the public implementation cost?",
        (
            FDRL,
            Row("balance loss times 64", {"lambda_balance": 64.0}),
            Row("frozen centers", FROZEN),
            Row("messages in equation 11", MESSAGES),
            Row("all three", {"lambda_balance": 64.0, **FROZEN, **MESSAGES}),
            AS_PRINTED,
            # The implementation's best λ2, 0.001, times the 64 samples of a batch.
            Row(
                "the public implementation",
                {"reduction": "sum", "lambda_balance": 0.064, **FROZEN, **MESSAGES},
            ),
        ),
        baseline="FDRL",
        notes="Its balance loss is 64 times the paper's, and its centers never move.",
    ),
    Study(
        "width",
        "Is it the structure or the width?",
        (
            LINEAR,
            FDRL,
            Row("plain, of FDRL's width", {"head": "plain", "hidden": 1152}),
            Row("plain, as many parameters", {"head": "plain"}),
            Row("plain, four times as wide", {"head": "plain", "hidden": 4608}),
        ),
        baseline="FDRL",
    ),
    Study(
        "attachment",
        "What makes FDRL help?",
        (
            LINEAR,
            Row("linear, normalized", {"head": "linear", **NORM}),
            Row("plain, normalized", {"head": "plain", **NORM}),
            FDRL,
            Row("FDRL, normalized", NORM),
            Row("FDRL, normalized, attention", {**NORM, "attach": "attention"}),
            Row("FDRL, normalized, places", {**NORM, "attach": "places"}),
            Row("FDRL, λ2 warmed up", WARM_UP),
            Row("FDRL as printed, λ2 warmed up", {**AS_PRINTED.overrides, **WARM_UP}),
        ),
        notes="Changes that are ours, beside the same changes of the baseline.",
    ),
    Study(
        "finer",
        "Does it help to attach to maps of more places?",
        (
            Row("linear", {"head": "linear", **FINE}, LINEAR_FINE),
            Row("FDRL", FINE, LINEAR_FINE),
            Row("FDRL, attention", {**FINE, "attach": "attention"}, LINEAR_FINE),
            Row("FDRL, places", {**FINE, "attach": "places"}, LINEAR_FINE),
        ),
        notes="The last stage keeps the sides, for the baseline too: four times as many places.",
    ),
    Study(
        "pretraining",
        "Do drawn faces help?",
        (
            LINEAR,
            Row("linear, after drawn faces", {"head": "linear"}, LINEAR_DRAWN),
            FDRL,
            Row("FDRL, after drawn faces", {}, LINEAR_DRAWN),
        ),
        notes="The backbone first learns the expressions of faces that we draw.",
    ),
    Study(
        "remedies",
        "What do remedies for rare classes do?",
        (
            FDRL,
            Row("balanced weights", {"class_weights": "balanced"}),
            Row("weights by square roots", {"class_weights": "sqrt"}),
            Row("balanced sampler", {"sampler": "balanced"}),
            Row("adjusted logits", {"logit_adjust": 1.0}),
            # The focal loss does not support label smoothing.
            Row("focal loss", {"criterion": "focal", "label_smoothing": 0.0}),
        ),
        baseline="FDRL",
        by_class=("balanced sampler",),
    ),
    Study(
        "votes",
        "Do FER+'s votes teach more than their majority?",
        tuple(
            Row(f"{row.label}, {label}" if overrides else row.label, {**row.overrides, **overrides})
            for row in (LINEAR, FDRL)
            for label, overrides in (
                ("majority", {}),
                ("shares of votes", {"targets": "votes"}),
                ("a vote drawn each epoch", {"targets": "drawn"}),
            )
        ),
        notes="Valid and test have the majority's label in every row.",
    ),
    Study(
        "living",
        "Can Intra-W live, and is that worth anything?",
        (
            LINEAR,
            FDRL,
            *make_varied_intra_rows(),
            Row("peaked faces, 1", {"lambda_peak": 1.0}),
            Row("classes apart, 1", {"lambda_apart": 1.0}),
            Row("normalized latents", {"normalize_latents": True}),
        ),
        relations=True,
        notes="Ours, and not the paper's; the weight of each stands behind it.",
    ),
    Study(
        "living_trained",
        "Can Intra-W live on a trained backbone?",
        (LINEAR_AGAIN, Row("FDRL", {}, LINEAR), *make_varied_intra_rows(LINEAR)),
        relations=True,
    ),
)
"""In the order in which `all` runs them; `meaning`, which has no table of rows, runs last."""


def find_study(name: str) -> Study:
    """Return the study with a name."""
    return next(study for study in STUDIES if study.name == name)
