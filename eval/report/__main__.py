"""All records as one self-contained page that somebody who has never seen the project can read.

``python -m eval.report`` writes build/report.html. ``--docs FOLDER`` writes the measurement pages of the documentation
instead, and ``--readme`` the two figures of the README, whose table it prints. Nothing is measured: a section without
records names the command that makes them.
"""

import argparse
import sys
from pathlib import Path

from eval.shared.common import RESULTS, ROOT

from . import measurements, page, readme, records
from .sections import section

PAGE = ROOT.parent / "build" / "report.html"
FIGURES = ROOT.parent / "docs" / "pages" / "figures"
TITLE = "adaptive_lstm: what it reaches, and where it loses"
LEAD = (
    "adaptive_lstm runs pretrained stacked LSTMs on ordinary processors, without retraining. It takes the place of "
    "torch.nn.LSTM, makes the weights smaller once, and leaves out, input by input, what hardly changes the answer."
)
ORDER = (
    "answers", "summary", "frontier", "demo", "savings", "heat", "streaming", "pool", "silero", "long_stream", "delta",
    "latency", "never_slower", "calls", "onnx", "graphs", "linearity", "throughput", "bulk", "split_time", "scaling",
    "cores", "roofline", "limits", "compression", "within_budget", "taxonomy", "ablation", "validity", "cost_model",
    "audit", "fuzzing", "footprint", "embedded", "arm_bounds", "losses", "origin",
)  # fmt: skip
SECTIONS = tuple(map(section, ORDER))


def build(results: records.Results) -> str:
    """The page."""
    return page.render(TITLE, LEAD, SECTIONS, results)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of records (default eval/results)")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page (default build/report.html)")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="where --readme draws its figures")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--docs", type=Path, metavar="FOLDER", help="write the measurement pages, and nothing else")
    what.add_argument("--readme", action="store_true", help="print the table and draw the figures of the README")
    options = parser.parse_args(argv)
    if not options.results.is_dir():
        parser.error(f"no folder {options.results}; --results takes the folder that holds the .jsonl files")
    results = records.read(options.results)
    if options.docs is not None:
        options.docs.mkdir(parents=True, exist_ok=True)
        for name, text in measurements.pages(results).items():
            (options.docs / name).write_text(text, encoding="utf-8")
            print(options.docs / name)
    elif options.readme:
        print(readme.markdown(results))
        for path in readme.draw(results, options.figures):
            print(path, file=sys.stderr)
    else:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(build(results), encoding="utf-8")
        print(f"{options.out} ({options.out.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)


if __name__ == "__main__":
    main()
