"""A worker process from the outside: it is asked one case at a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LAST = 4000  # characters that are kept of what a case said before it died


@dataclass(frozen=True)
class Answer:
    """What a case came to.

    ``fault``: one line that names the fault; "" if there is none.
    ``text``: a traceback, or what the case said before it died.
    ``covered``, ``largest``: as in ``Seen``.
    """

    fault: str = ""
    text: str = ""
    covered: tuple[str, ...] = ()
    largest: dict[str, float] = field(default_factory=dict)


class Worker:
    """A process that runs cases of a target.

    Args:
        target: its name.
        isa: the instruction set; "": the best.
        limit: seconds after which a case counts as hanging.
    """

    def __init__(self, target: str, isa: str = "", limit: float = 300.0):
        answers, theirs = os.pipe()
        self._errors = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (closed with the worker)
        env = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"ADAPTIVE_LSTM_ISA": isa} if isa else {})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", target, str(theirs), str(limit)],
            cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=self._errors, stderr=self._errors, pass_fds=(theirs,),
        )  # fmt: skip
        os.close(theirs)
        self._answers = os.fdopen(answers, "rb")

    def run(self, request: dict[str, Any]) -> Answer:
        """Run one case: {"seed", "number"} or {"case"}."""
        assert self._process.stdin is not None
        self._errors.truncate(0)
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"the worker ended without an answer:\n{self._said()}")
        found = json.loads(line)
        if found["ok"]:
            return Answer(covered=tuple(found["covered"]), largest=found["largest"])
        return Answer(found["fault"], found["text"] or self._said())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._answers.close()
        self._errors.close()

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-LAST:]
