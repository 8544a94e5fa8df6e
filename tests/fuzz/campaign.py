"""Run many cases in several processes, shrink what fails, and say how to run it again."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .pool import Worker
from .record import Failure, Record
from .shrink import shrink
from .target import Case, drawn, load


@dataclass(frozen=True)
class Settings:
    """Of a run.

    ``target``: its name.
    ``seed``: with the number of a case, all that a case depends on.
    ``isas``: instruction sets; case n runs on number n modulo how many there are. "": the best.
    ``cases``, ``minutes``: when to end; whichever comes first.
    ``workers``: processes; rounded up to as many for every instruction set.
    ``limit``: seconds after which a case hangs.
    """

    target: str
    seed: int
    isas: Sequence[str] = ("",)
    cases: int = 10**9
    minutes: float = 1.0
    workers: int = 1
    limit: float = 300.0


class Campaign:
    """One run."""

    def __init__(self, settings: Settings):
        self.settings, self.target, self.record = settings, load(settings.target), Record()
        self._end = time.monotonic() + 60 * settings.minutes
        self._lock = threading.Lock()
        self._known: set[str] = set()  # faults that are being shrunk or have been

    def run(self) -> Record:
        """Run to the end; failures are printed as they come."""
        every = self.settings
        share = -(-every.workers // len(every.isas))
        threads = []
        for first, isa in enumerate(every.isas):
            numbers = itertools.takewhile(lambda n: n < every.cases, itertools.count(first, len(every.isas)))
            threads += [threading.Thread(target=self._work, args=(isa, numbers)) for _ in range(share)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.record

    def _work(self, isa: str, numbers: Iterator[int]) -> None:
        worker = Worker(self.settings.target, isa, self.settings.limit)
        try:
            while time.monotonic() < self._end:
                with self._lock:
                    number = next(numbers, None)
                if number is None:
                    return
                self._case(worker, isa, number)
        finally:
            worker.close()

    def _case(self, worker: Worker, isa: str, number: int) -> None:
        answer = worker.run({"seed": self.settings.seed, "number": number})
        with self._lock:
            self.record.add(isa, answer)
            done = sum(self.record.cases.values())
            new = bool(answer.fault) and answer.fault not in self._known
            self._known.add(answer.fault)
        if done % 1000 == 0:
            print(f"{done} cases, {sum(self.record.faults.values())} failed", file=sys.stderr, flush=True)
        if answer.fault and not new:
            print(f"FAULT again, case {number}: {answer.fault}", flush=True)
        if not new:
            return
        case = drawn(self.target, self.settings.seed, number)
        small = shrink(self.target, case, lambda c: worker.run({"case": c}).fault == answer.fault)
        failure = Failure(number, isa, answer, small)
        with self._lock:
            self.record.failures.append(failure)
        print(self.told(failure), flush=True)

    def told(self, failure: Failure) -> str:
        """A failure for people, with the commands that run it again."""
        isa = f"ADAPTIVE_LSTM_ISA={failure.isa} " if failure.isa else ""
        command = f"{isa}python -m tests.fuzz {self.settings.target}"
        return (
            f"FAULT {failure.answer.fault}\n{failure.answer.text.rstrip()}\n"
            f"as drawn: {command} --seed {self.settings.seed} --only {failure.number}\n"
            f"shrunk:   {command} --case {shlex.quote(json.dumps(failure.case))}"
        )


def replay(target: str, case: Case, limit: float) -> str:
    """Run one case in a process of its own; what it came to, "" if it went well."""
    worker = Worker(target, "", limit)
    try:
        answer = worker.run({"case": case})
    finally:
        worker.close()
    return f"FAULT {answer.fault}\n{answer.text.rstrip()}" if answer.fault else ""
