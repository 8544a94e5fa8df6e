"""The process that runs cases: a request a line on stdin, an answer a line on a pipe of its own.

Requests are {"seed", "number"} or {"case"}; answers {"ok": true, "covered", "largest"} or {"ok": false, "fault",
"text"}. What a case prints goes to stderr, so that it cannot be taken for an answer. A child runs the cases. When one
ends it or makes it hang, the process answers in its place and forks another, which has everything loaded.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import signal
import sys
import traceback
import warnings
from typing import Any

import torch

from .target import Case, Fault, Target, drawn, load


def main(name: str, answers: int, limit: float) -> None:
    """Answer requests until stdin ends."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the package, for what the cases do on purpose
    target = load(name)
    while True:
        child = os.fork()
        if not child:
            _serve(target, answers, limit)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return
        _write(answers, {"ok": False, "fault": _death(code), "text": ""})


def _death(code: int) -> str:
    if code == -signal.SIGALRM:
        return "hang"
    return f"crash: {signal.Signals(-code).name if code < 0 else f'exit {code}'}"


def _serve(target: Target, answers: int, limit: float) -> None:
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)  # shows where a case hangs, then ends the process
    requests = io.BufferedReader(io.FileIO(0, closefd=False))
    for line in requests:
        request = json.loads(line)
        case = request["case"] if "case" in request else drawn(target, request["seed"], request["number"])
        signal.setitimer(signal.ITIMER_REAL, limit)
        with contextlib.redirect_stdout(sys.stderr):
            found = answer(target, case)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(answers, found)


def _write(answers: int, found: dict[str, Any]) -> None:
    line = json.dumps(found).encode() + b"\n"
    while line:
        line = line[os.write(answers, line) :]


def answer(target: Target, case: Case) -> dict[str, Any]:
    """What a case came to."""
    try:
        seen = target.check(case)
    except Exception as error:  # noqa: BLE001 (a fuzzer reports everything)
        return {"ok": False, "fault": name_of(error), "text": traceback.format_exc()}
    return {"ok": True, "covered": seen.covered, "largest": seen.largest}


def name_of(error: Exception) -> str:
    """One line by which faults of one kind are known: what failed, or the exception and where it was raised."""
    if isinstance(error, Fault):
        return str(error).splitlines()[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "adaptive_lstm" in f.filename), frames[-1])
    return f"{type(error).__name__} in {os.path.basename(place.filename)}: {place.name}"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
