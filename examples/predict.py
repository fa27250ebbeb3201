"""Predict the expressions in pictures, with their probabilities and the weights of the latents.

    python examples/predict.py face.png folder/ --run runs/NAME
    python examples/predict.py face.png --run runs/NAME --json
    python examples/predict.py photograph.jpg --run runs/NAME --detector mtcnn --annotate OUT

A picture is a face cropped as in the run's database or, with --detector or --landmarks, any
photograph, whose face is cropped as by align_faces.py. A folder means all pictures in it.
--json prints one object per line, each with the same keys. A picture that cannot be predicted is
reported with the reason, the others are predicted, and the exit status is 1.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fdrl_layers import FDRLOutput
from fer.alignment.annotate import draw_prediction
from fer.alignment.eyes import Crop, FindEyes, add_options, make_eye_finder
from fer.model.build import TrainedModel, get_logits, load_trained
from fer.report.pictures import as_tensor, list_pictures, read_picture
from fer.training import augment, precision

MAX_SQUARE_RATIO = 1.05
"""Maximum ratio of the sides of a picture that is accepted as square."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for a picture; the attributes are the keys of --json.

    Attributes:
        image: The path of the picture, as given.
        label: The most probable class.
        probability: Probability of that class.
        probabilities: Probabilities of all classes, in the order of the logits.
        intra_weights: Intra-W of every latent; None if the model has no Intra-RM.
        eyes: The left and the right eye, x and y in the picture, if they were searched for.
        note: A note on the picture, or None.
        error: The reason why there is no prediction, or None.
    """

    image: str
    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    intra_weights: list[float] | None = None
    eyes: list[list[float]] | None = None
    note: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Predictor:
    """A trained model and the preprocessing of pictures for it."""

    trained: TrainedModel
    device: str
    find_eyes: FindEyes | None
    crop: Crop

    def prepare_face(self, path: Path, name: str) -> tuple[Prediction, Tensor | None]:
        """Return a prediction without results and the network's input (3, S, S), None on errors."""
        prediction = Prediction(str(path))
        try:
            picture = read_picture(path)
            # A network that was trained on gray faces requires gray input.
            plain = picture.convert("L" if self.trained.gray else "RGB")
            if self.find_eyes is None:
                face = as_tensor(plain)
                prediction = replace(prediction, note=_note_squeezed(*picture.size))
            else:
                eyes, faces = self.find_eyes(name, picture)
                face = self.crop(plain, eyes)
                note = None if faces == 1 else f"{faces} faces found; this is about one of them"
                prediction = replace(prediction, eyes=eyes.tolist(), note=note)
        except ValueError as error:
            return replace(prediction, error=str(error)), None
        return prediction, augment.crop_for_evaluation(face[None], self.trained.options.image_size)[
            0
        ]

    @torch.no_grad()
    def predict_faces(self, faces: Tensor) -> Iterator[dict[str, Any]]:
        """Yield the results of the model for each of the faces (N, 3, S, S)."""
        options, classes = self.trained.options, self.trained.classes
        with precision.autocast(options, torch.device(self.device)):
            output = self.trained.model(faces.to(self.device))
        has_weights = isinstance(output, FDRLOutput) and options.intra
        intra_weights = output.intra_weights.tolist() if has_weights else [None] * len(faces)
        every = F.softmax(get_logits(output).float(), dim=1).tolist()
        for weights, values in zip(intra_weights, every, strict=True):
            probabilities = dict(zip(classes, values, strict=True))
            label = max(probabilities, key=probabilities.__getitem__)
            yield {
                "label": label,
                "probability": probabilities[label],
                "probabilities": probabilities,
                "intra_weights": weights,
            }

    def predict(
        self, pictures: Sequence[tuple[Path, str]], batch_size: int
    ) -> Iterator[tuple[Prediction, Tensor | None]]:
        """Yield the prediction for each picture, in order, and the face that it is based on."""
        for start in range(0, len(pictures), batch_size):
            batch = [self.prepare_face(*each) for each in pictures[start : start + batch_size]]
            faces = [face for _, face in batch if face is not None]
            results = self.predict_faces(torch.stack(faces)) if faces else iter(())
            for prediction, face in batch:
                yield prediction if face is None else replace(prediction, **next(results)), face


def _note_squeezed(width: int, height: int) -> str | None:
    if max(width, height) <= MAX_SQUARE_RATIO * min(width, height):
        return None
    return f"squeezed from {width} x {height} to a square; --detector cuts out the face"


def load_model(given: argparse.Namespace) -> TrainedModel:
    """Return the model of the run that the command line selects."""
    try:
        trained = load_trained(given.run, "best" if given.best else "last", given.device)
    except Exception as error:  # torch.load raises many types of exceptions for damaged files.
        raise ValueError(f"{given.run} holds no model to predict with: {error}") from error
    if trained.options.amp == "fp16" and not given.device.startswith("cuda"):
        return replace(trained, options=replace(trained.options, amp="off"))
    return trained


def collect_pictures(images: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the pictures, including those in folders, and their names in landmark files."""
    pictures = []
    for path in images:
        if path.is_dir():
            found = [(each, each.relative_to(path).as_posix()) for each in list_pictures(path)]
            if not found:
                raise ValueError(f"{path} holds no pictures")
            pictures += found
        else:
            pictures.append((path, path.name))
    return pictures


class Table:
    """A table with a line for each picture, printed as soon as it is predicted."""

    def __init__(self, images: Sequence[str], classes: Sequence[str], latents: int) -> None:
        self.names = max(len("image"), *map(len, images))
        self.labels = max(map(len, classes))
        short = [name[:5] for name in classes]
        self.heads = short if len(set(short)) == len(short) else list(classes)
        weights = "".join(f"{j:>7}" for j in range(1, latents + 1))
        heads = "".join(f" {head:>5}" for head in self.heads)
        above = f"{'':{self.names + self.labels + 2}}{'  probability in %':<{len(heads) + 2}}"
        print(f"{above}{'  Intra-W of each latent' if latents else ''}".rstrip())
        print(f"{'image':{self.names}}  {'label':{self.labels}}{heads}  {weights}".rstrip())

    def add(self, prediction: Prediction) -> None:
        """Print a line; notes and errors go to standard error."""
        for word, text in (("error", prediction.error), ("note", prediction.note)):
            if text is not None:
                print(f"{word}: {prediction.image}: {text}", file=sys.stderr)
        if prediction.probabilities is None:
            return
        shares = "".join(
            f" {100 * share:>{max(5, len(head))}.1f}"
            for head, share in zip(self.heads, prediction.probabilities.values(), strict=True)
        )
        weights = "".join(f"{weight:>#7.3g}" for weight in prediction.intra_weights or ())
        label = f"{prediction.label:{self.labels}}"
        line = f"{prediction.image:{self.names}}  {label}{shares}  {weights}"
        print(line.rstrip(), flush=True)


def annotate(folder: Path, prediction: Prediction, face: Tensor) -> Path:
    """Draw the prediction for a picture to a new file, whose name gets a number if it exists."""
    assert prediction.probabilities is not None
    stem, number = f"{Path(prediction.image).stem}_predicted", 1
    while (path := folder / f"{stem}{'' if number == 1 else f'_{number}'}.png").exists():
        number += 1
    folder.mkdir(parents=True, exist_ok=True)
    percent = 100 * (prediction.probability or 0)
    title = f"{Path(prediction.image).name}: {prediction.label} ({percent:.1f} %)"
    draw_prediction(path, face, title, prediction.probabilities, prediction.intra_weights)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="or a folder")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="of a training")
    parser.add_argument("--best", action="store_true", help="best.pt instead of last.pt")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N")
    parser.add_argument("--json", action="store_true", help="print an object a line")
    parser.add_argument("--annotate", type=Path, metavar="DIR", help="draw a picture of each")
    add_options(parser, required=False)
    given = parser.parse_args(arguments)
    if given.batch_size < 1:
        parser.error(f"--batch-size must be at least 1, got {given.batch_size}")
    try:
        trained = load_model(given)
        crop = Crop(eye_distance=given.eye_distance, eye_height=given.eye_height)
        predictor = Predictor(trained, given.device, make_eye_finder(given), crop)
        pictures = collect_pictures(given.images)
        table = None
        if not given.json:
            options = trained.options
            latents = options.num_latents if options.head == "fdrl" and options.intra else 0
            table = Table([str(path) for path, _ in pictures], trained.classes, latents)
        failed = 0
        for found, face in predictor.predict(pictures, given.batch_size):
            if table is None:
                print(json.dumps(asdict(found)), flush=True)
            else:
                table.add(found)
            failed += found.error is not None
            if given.annotate is not None and face is not None:
                annotate(given.annotate, found, face)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if failed:
        print(f"{failed} of {len(pictures)} pictures not predicted", file=sys.stderr)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
