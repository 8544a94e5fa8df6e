"""Fuzz the package: random cases against an oracle, until a time or a number of cases is reached.

``python -m tests.fuzz lstm --minutes 1``: native kernels against the reference executor and ``nn.LSTM``.
``python -m tests.fuzz files --minutes 1``: mutated files. A failure is shrunk and printed with the commands that run it
again; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path

from adaptive_lstm import _native
from eval.shared.common import write_results

from .campaign import Campaign, Settings, replay
from .record import Record
from .target import TARGETS, drawn, load


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("target", help=f"{' or '.join(TARGETS)}, or another one as module:NAME")
    options.add_argument("--minutes", type=float, default=1.0, help="when to stop (default 1)")
    options.add_argument("--cases", type=int, default=10**9, help="when to stop, if that comes first")
    options.add_argument("--seed", type=int, help="of the run (default: a new one, which is printed)")
    options.add_argument("--isas", default="", help="instruction sets, by commas (default: all that can run)")
    options.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    options.add_argument("--limit", type=float, default=300.0, help="seconds after which a case hangs (default 300)")
    options.add_argument("--record", type=Path, metavar="FOLDER", help="write a record of the counts there")
    one = options.add_mutually_exclusive_group()
    one.add_argument("--only", type=int, metavar="NUMBER", help="run this case of the seed alone")
    one.add_argument("--case", type=json.loads, metavar="JSON", help="run this case alone")
    return options


def main(argv: list[str] | None = None) -> int:
    """The exit status: 1 if anything failed."""
    options = parser().parse_args(argv)
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    if options.only is not None or options.case is not None:
        case = options.case if options.only is None else drawn(load(options.target), seed, options.only)
        print(json.dumps(case))
        told = replay(options.target, case, options.limit)
        print(told or "no fault")
        return int(bool(told))
    isas = options.isas.split(",") if options.isas else _native.usable_isas()
    print(f"{options.target}: seed {seed}, instruction sets {' '.join(isas)}", flush=True)
    record = Campaign(
        Settings(options.target, seed, isas, options.cases, options.minutes, options.workers, options.limit)
    ).run()
    if options.record is not None:
        write_results(options.record, "fuzzing", [record.as_dict(options.target, seed)])
    print(summary(record))
    return int(bool(record.faults))


def summary(record: Record) -> str:
    """The run in a few lines."""
    ran = ", ".join(f"{count} on {isa}" for isa, count in sorted(record.cases.items()))
    faults = "".join(f"\n  {count} times: {name}" for name, count in record.faults.most_common())
    return f"{sum(record.cases.values())} cases ({ran}), {sum(record.faults.values())} failed{faults}"


if __name__ == "__main__":
    sys.exit(main())
