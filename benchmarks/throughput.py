"""Measure how fast the examples train and how long they wait for data.

    python -m benchmarks throughput [--device cuda --dtype bfloat16 --channels-last --graph]

Trains a ResNet-18 with the FDRL head on synthetic faces at 64 and 224 pixels in batches of 64, with
the training code of examples/fer_rafdb.py, and also measures the data path without a model.
Writes benchmarks/results/MACHINE/throughput-DTYPE.json, or throughput-graph-DTYPE.json, in under
three minutes on two CPU cores.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.schema import RESULTS, Speed, Throughput, write
from benchmarks.timing import percentiles
from fer.options import Options
from fer.training.batches import TrainingBatches
from fer.training.progress import Progress
from fer.training.ranks import Ranks
from fer.training.run import Run, build_run
from fer.training.stopping import StopRequest

AMP = {"float32": "off", "bfloat16": "bf16", "float16": "fp16"}
STEPS = {"cpu": {64: 8, 224: 2}, "cuda": {64: 40, 224: 40}}
"""Steps per timed epoch, by device and size: a step at 224 takes seconds on a CPU."""
RECIPE = 40 * 12_271
"""Number of images in the training of section 4.2 on RAF-DB."""


def measure(options: Options, rounds: int, ranks: Ranks) -> Speed:
    """Measure `rounds` epochs after a warm-up epoch, with training and with the data path alone."""
    run = build_run(options, ranks)
    found = []
    for epoch in range(rounds + 1):
        run.progress = Progress()
        found.append(run.train_epoch(epoch, StopRequest()))
    alone = [measure_data_path(run, epoch) for epoch in range(rounds + 1)]
    training = percentiles([each["images_per_second"] for each in found[1:]])
    on_gpu = ranks.device.type == "cuda" and options.image_size == 224
    return Speed(
        image_size=options.image_size,
        training=tuple(training),
        waiting=tuple(percentiles([each["waiting"] for each in found[1:]])),
        data=tuple(percentiles(alone[1:])),
        recipe_seconds=RECIPE / training[1] if on_gpu else 0.0,
    )


def measure_data_path(run: Run, epoch: int) -> float:
    """Return the images per second of an epoch of batches without training."""
    began = time.perf_counter()
    for _ in TrainingBatches(run.faces, run.options, epoch, run.ranks).iterate_from(0):
        pass
    if run.ranks.device.type == "cuda":
        torch.cuda.synchronize()
    return run.steps * run.options.batch_size / (time.perf_counter() - began)


def main(argv: list[str] | None = None) -> None:
    """Measure all sizes, print the results and write them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(AMP), default="float32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--rounds", type=int, default=5, help="epochs that are timed")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graph", action="store_true", help="one CUDA graph a step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for the results")
    given = parser.parse_args(argv)
    if given.graph and given.device != "cuda":
        parser.error("--graph needs --device cuda")
    torch.set_num_threads(given.threads)
    ranks = Ranks(0, 1, torch.device(given.device))
    steps = STEPS[given.device]
    speeds = []
    for size in given.sizes:
        options = Options(
            # The same number for every size, so that the faces are drawn once.
            faces=given.batch * max(steps.values()),
            limit=given.batch * steps.get(size, min(steps.values())),
            image_size=size,
            batch_size=given.batch,
            epochs=given.rounds + 1,
            amp=AMP[given.dtype],
            channels_last=given.channels_last,
            compile=given.compile,
            graph=given.graph,
        )
        speeds.append(measure(options, given.rounds, ranks))
        print(format_speed(speeds[-1]), flush=True)
    settings = [f"cache {'device' if given.device == 'cuda' else 'ram'}"]
    settings += ["channels last"] * given.channels_last + ["compiled"] * given.compile
    settings += ["one CUDA graph a step"] * given.graph
    results = Throughput(
        model="ResNet-18, FDRL head",
        batch=given.batch,
        dtype=given.dtype,
        settings=", ".join(settings),
        rounds=given.rounds,
        machine=describe(given.device),
        speeds=tuple(speeds),
    )
    folder = given.out or RESULTS / results.machine.slug()
    name = "throughput-graph" if given.graph else "throughput"
    write(folder / f"{name}-{given.dtype}.json", results)


def format_speed(speed: Speed) -> str:
    """Return the throughput as one line of text."""
    text = (
        f"{speed.image_size} pixels: {speed.training[1]:.0f} images/s, "
        f"{100 * speed.waiting[1]:.1f} % waiting; data alone {speed.data[1]:.0f} images/s"
    )
    if speed.recipe_seconds:
        text += f"; 40 epochs of 12,271 images in {speed.recipe_seconds:.0f} s"
    return text
