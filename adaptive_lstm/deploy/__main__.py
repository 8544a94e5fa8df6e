"""``python -m adaptive_lstm.deploy bench``: how fast does this machine run LSTMs, yours or some of usual sizes?

One thread, batch 1; medians with quartiles. The ratio is to float32 of the same size. With ``--json`` the figures are
printed as one JSON object, which is what to send in from a machine that nobody has measured yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..bench import format_seconds
from ..errors import AdaptiveLSTMError
from . import load, measure


def main(argv: list[str] | None = None) -> int:
    """The exit status: 2 if the file cannot be run."""
    parser = argparse.ArgumentParser(
        prog="python -m adaptive_lstm.deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="bench")
    bench = commands.add_parser("bench", help="measure this machine", description=__doc__)
    bench.add_argument("file", nargs="?", help="written by adaptive_lstm.save(..., weights=True); default: samples")
    bench.add_argument("--json", action="store_true", help="print one JSON object")
    bench.add_argument("--repeats", type=int, default=30, help="rounds (default 30)")
    options = parser.parse_args(argv)
    try:
        lstms = (
            measure.samples() if options.file is None else {n or "the LSTM": m for n, m in load(options.file).items()}
        )
        found = {"machine": measure.machine(), "lstms": measure.measured(lstms, repeats=options.repeats)}
    except AdaptiveLSTMError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(found) if options.json else as_text(found))
    return 0


def as_text(found: dict[str, Any]) -> str:
    """The figures as a table."""
    machine = found["machine"]
    lines = [
        f"{machine['cpu']}, {machine['platform']}, {machine['isa']} of {', '.join(machine['usable_isas'])}",
        "",
        f"{'one thread, batch 1':32}{'a step':>10}{'quartiles':>22}{'a timestep of 100':>20}{'computed':>10}",
    ]
    for one in found["lstms"]:
        step = one["step"]
        shown = "" if step is None else f"{format_seconds(step[1])} to {format_seconds(step[2])}"
        first = "" if step is None else format_seconds(step[0])
        lines.append(
            f"{one['name']:32}{first:>10}{shown:>22}{format_seconds(one['timestep'][0]):>20}{one['macs']:>10.0%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
