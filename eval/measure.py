"""Every record anew, from one machine and one commit: runs the evaluations one after another.

``python -m eval.measure --zoo PATH`` takes some hours. Stopped, it goes on where it was: what this commit has finished
on this machine is kept in build/measure.json. When an evaluation ends, the records that others left in its file go, so
that a table has one machine. Evaluations run on the last processor, at real-time priority where that is allowed; those
that ask about threads run on all. What needs files of others (``eval.embedded``, the zoo) is left out without them.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from adaptive_lstm import backend_info
from adaptive_lstm.bench import machine
from eval.report.records import COMMANDS
from eval.shared.common import RESULTS, ROOT, commit, one_of

STATE = ROOT.parent / "build" / "measure.json"
PARALLEL = ("cores", "throughput", "bulk", "bulk_ray", "pool")  # ask what threads give
ELSEWHERE = ("quality", "embedded", "fuzzing")  # quality stands in for frontier; the others time nothing
NAMES = tuple(name for name in COMMANDS if name not in ELSEWHERE)
VARIANTS = {"validity": ((), ("--objective", "latency"))}  # evaluations that run more than once, with these options
Start = Callable[[Sequence[str], bool], int]
"""Runs arguments of this Python, alone on a processor if told so; the exit status."""


def runs(name: str, zoo: Path | None) -> list[list[str]]:
    """Arguments of Python for every run of an evaluation; none: it needs the zoo."""
    words = COMMANDS[name].split()[1:]
    if "PATH" in words and zoo is None:
        return []
    words = [str(zoo) if word == "PATH" else word for word in words]
    return [[*words, *options] for options in VARIANTS.get(name, ((),))]


def started(arguments: Sequence[str], alone: bool) -> int:
    """As ``Start``."""

    def settle() -> None:
        if not alone:
            return
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))

    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if alone else {}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT.parent, env=os.environ | single, preexec_fn=settle, check=False
    ).returncode


def keep_own(path: Path, stamp: tuple[str, str]) -> int:
    """Drop the records of a file that another commit or machine left; returns how many."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if _stamp_of(json.loads(line)) == stamp]
    if len(kept) < len(lines):
        partial = path.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        partial.replace(path)
    return len(lines) - len(kept)


def _stamp_of(record: dict[str, object]) -> tuple[str, str]:
    where = record.get("machine")
    return str(record.get("commit")), str(where.get("cpu")) if isinstance(where, dict) else ""


def sweep(
    names: Sequence[str], zoo: Path | None, results: Path, state: Path, stamp: tuple[str, str], start: Start
) -> list[str]:
    """Run the evaluations that are not done yet.

    Args:
        names: of evaluations, in this order.
        zoo: folder of pretrained models; None: evaluations that need it are left out.
        results: folder of records.
        state: file of what is done; of another stamp it counts for nothing.
        stamp: commit and processor.
        start: runs one.

    Returns:
        Why evaluations have no new records, a line for each.
    """
    done = _done(state, stamp)
    missing = []
    for name in names:
        if name in done:
            print(f"{name}: done before", flush=True)
        elif why := _run(name, zoo, start):
            missing.append(f"{name}: {why}")
        else:
            gone = keep_own(results / f"{name}.jsonl", stamp)
            print(f"==== {name}: {gone} records of others dropped", flush=True)
            done.append(name)
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text(json.dumps({"stamp": stamp, "done": done}), encoding="utf-8")
    return missing


def _run(name: str, zoo: Path | None, start: Start) -> str:
    """Why it did not run to its end, or ""."""
    found = runs(name, zoo)
    for arguments in found:
        print(f"\n==== {name}: python {' '.join(arguments)}", flush=True)
        if status := start(arguments, name not in PARALLEL):
            return f"ended with status {status}"
    return "" if found else "needs --zoo"


def _done(state: Path, stamp: tuple[str, str]) -> list[str]:
    if not state.exists():
        return []
    found = json.loads(state.read_text(encoding="utf-8"))
    return list(found["done"]) if tuple(found["stamp"]) == stamp else []


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 1 if an evaluation has no new records."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, help="folder of pretrained models; see eval/zoo")
    parser.add_argument("--only", type=one_of(*NAMES), default=NAMES, help="evaluations, in this order")
    parser.add_argument("--again", action="store_true", help="forget what is done")
    options = parser.parse_args(argv)
    if options.zoo is not None and not options.zoo.is_dir():
        parser.error(f"no folder {options.zoo}; --zoo takes the folder of pretrained models")
    name = commit()
    if name == "unknown" or name.endswith("-dirty"):
        parser.error(f"the records would carry commit {name}: commit your changes first")
    if options.again:
        STATE.unlink(missing_ok=True)
    stamp = name, str(machine(backend_info())["cpu"])
    missing = sweep(options.only, options.zoo, RESULTS, STATE, stamp, started)
    print("\n".join(missing), file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
