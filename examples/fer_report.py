"""Create one HTML file with the numbers, figures and faces of a run.

    python examples/fer_report.py runs/NAME
    python examples/fer_report.py runs/NAME --baseline runs/LINEAR --out report.html

RUN is the folder of a run that has ended, or of a cross-validation. With --baseline, the folder of
another run on the same test faces, both are shown side by side, as in figure 5 of the paper. The
page contains its pictures and scripts and loads nothing else, so that it can be sent by mail.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fer.model import checkpoint
from fer.report import page, sections
from fer.report.data import make_script_data
from fer.report.folder import ReportedRun, read_folder, require_comparable
from fer.report.sheet import make_sheet


def report(run: ReportedRun, baseline: ReportedRun | None = None) -> str:
    """Return the page of a run, compared with a baseline that was tested on the same faces.

    All numbers are from the last epoch and the test split unless stated otherwise. Results for
    features or latents are from one model: the run's, or that of fold 1 of a cross-validation,
    because latent 3 of one training is not latent 3 of another.
    """
    if baseline is not None:
        require_comparable(run, baseline)
    embedding = sections.embedding_section(run, baseline)  # figure 5
    pictures = make_sheet(run.faces.images)
    content = {
        **sections.accuracy_section(run, baseline),  # table 3
        **sections.face_section(run),
        **embedding,
        "latents": sections.latent_section(run),  # figures 3 and 6
        "inter": sections.inter_section(run),
        "units": sections.unit_section(run, baseline),
        "folds": run.folds,
        "sheet": pictures,
    }
    data = make_script_data(run, baseline, pictures, embedding["shown"])
    return page.render(content, data | {"maps": embedding["maps"]})


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run the command line and return the path of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run that has ended")
    parser.add_argument(
        "--baseline", type=Path, metavar="RUN", help="another run on the same test faces"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in RUN")
    given = parser.parse_args(arguments)
    out: Path = given.out or given.run / "report.html"
    try:
        run = read_folder(given.run)
        baseline = None if given.baseline is None else read_folder(given.baseline)
        # Check this before the work, not after it.
        if not out.parent.is_dir() or out.is_dir():
            raise FileNotFoundError(f"--out must be a file in a folder that exists, got {out}")
        content = report(run, baseline).encode()
        checkpoint.write_atomically(out, content)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{out}: {len(content) / 1e6:.1f} MB")
    return out


if __name__ == "__main__":
    main()
