"""Train FDRL, or the paper's baseline, to recognize facial expressions.

    python examples/fer_rafdb.py                                       # synthetic faces
    python examples/fer_rafdb.py --dataset rafdb --data DIR --preset paper
    python examples/fer_rafdb.py --dataset ferplus --data DIR --head linear
    python examples/fer_rafdb.py --resume runs/NAME
    torchrun --nproc-per-node 4 examples/fer_rafdb.py ...

A run writes a folder with config.json, metrics.csv, summary.json, last.pt, best.pt, evaluation.pt,
confusion.png and, for FDRL, intra_weights.png. Ctrl-C and SIGTERM stop it after the current step,
and --resume continues from there as if it had never been stopped.

The steps of a run, in order, and the files that implement them:

    data        a database is decoded into memory          fer/data/table.py
    model       a ResNet with a head                       fer/model/build.py
    losses      equation 13, and the baseline's            fer/model/build.py
    loop        batches, steps and epochs                  fer/training/run.py
    evaluation  predictions for valid and test             fer/evaluation/predictions.py
"""

from collections.abc import Sequence
from typing import Any

from fer.command import parse
from fer.evaluation.summary import format_result
from fer.model import checkpoint
from fer.model.build import check_weights
from fer.training.errors import report_errors
from fer.training.ranks import join_ranks
from fer.training.run import build_run, has_checkpoint


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command line and return the summary."""
    command = parse(__doc__ or "", arguments)
    options = command.options
    with join_ranks(options.device) as ranks:
        folder = command.resume
        with report_errors(ranks, lambda: f"to go on: --resume {folder}"):
            run = build_run(options, ranks, resumed=has_checkpoint(folder))
            if ranks.is_first and folder is None:
                check_weights(options)
                name = f"{options.dataset}-{options.head}-{options.preset}-seed{options.seed}"
                folder = checkpoint.create_run_folder(command.out, name, options.to_dict())
            folder = ranks.gather(folder)[0]
            with checkpoint.lock_folder(folder, ranks.is_first):
                summary = run.open(folder).train()
        if ranks.is_first:
            print(f"{format_result(summary)}\nin {folder}")
    return summary


if __name__ == "__main__":
    main()
