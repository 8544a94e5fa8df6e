"""Thousands of mutated files, and that the target which makes them sees what it should."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import replace
from unittest import mock

import pytest

import adaptive_lstm as al

from . import files
from .campaign import Campaign, Settings
from .file_kinds import KINDS, FileKind
from .files import TARGET, mutated
from .pool import ROOT
from .target import Fault, drawn


@pytest.mark.filterwarnings("ignore")  # of torch, about projections
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_file_that_nothing_changed_works(kind: FileKind) -> None:
    assert TARGET.check({"kind": kind.name, "changes": []}).covered == [f"{kind.name}: loaded, and works"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_change_changes_something_and_only_by_its_seed(kind: FileKind) -> None:
    whole = mutated({"kind": kind.name, "changes": []})
    for name in kind.changes:
        cases = [{"kind": kind.name, "changes": [[name, seed]]} for seed in range(6)]
        assert {mutated(case) for case in cases} - {whole}, name
        assert mutated(cases[0]) == mutated(cases[0])


@pytest.mark.filterwarnings("ignore")  # of torch and numpy, about what the files hold
def test_some_mutated_files() -> None:
    seen: Counter[str] = Counter()
    for number in range(300):
        seen.update(TARGET.check(drawn(TARGET, 0, number)).covered)
    assert all(seen[f"{kind.name}: refused"] for kind in KINDS)
    assert sum(count for name, count in seen.items() if name.endswith("works")) > 15


@pytest.mark.slow
def test_ten_thousand_mutated_files() -> None:
    record = Campaign(Settings("files", seed=14, cases=10_000, minutes=60, workers=2)).run()
    assert record.faults == {}
    assert sum(record.cases.values()) == 10_000
    assert record.covered["model.alstm: loaded, and works"] > 10


def test_a_case_is_the_same_file_in_every_process() -> None:
    """Otherwise a seed and a number would not name it."""
    program = (
        "import zlib; from tests.fuzz.files import TARGET, mutated; from tests.fuzz.target import drawn; "
        "print([zlib.crc32(mutated(drawn(TARGET, 5, number))) for number in range(60)])"
    )
    other = subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert json.loads(other.stdout) == [zlib.crc32(mutated(drawn(TARGET, 5, number))) for number in range(60)]


def kind_of(**changes: object) -> dict[str, FileKind]:
    """The kinds with another reader or user for certificates."""
    (one,) = (kind for kind in KINDS if kind.name == "certificate.json")
    return {one.name: replace(one, **changes)}  # type: ignore[arg-type]


def test_every_way_to_fail_is_a_fault() -> None:
    case = {"kind": "certificate.json", "changes": []}

    def foreign(found: object) -> None:
        raise LookupError(f"certificate: {found}")

    def wordy(path: object) -> None:
        raise al.errors.InputError("x" * 9999)

    def slow(path: object) -> None:
        while time.process_time() < end:
            pass

    for changes, error, message in (
        ({"read": foreign}, LookupError, "certificate.json"),
        ({"read": wordy}, Fault, "a message of 9,999 characters"),
        ({"use": foreign}, LookupError, "certificate"),
        ({"same": lambda found: False}, Fault, "read as something else than was written"),
        ({}, Fault, "more than 512 MB"),
        ({"read": slow}, Fault, r"slower than 0\.1 seconds"),
    ):
        end = time.process_time() + 0.3
        with (
            mock.patch.object(files, "_BY_NAME", kind_of(**{"use": repr, **changes})),
            mock.patch.object(files, "_warm"),
            mock.patch.object(files, "_peak", side_effect=[0, 2**30 if "512 MB" in message else 0]),
            mock.patch.object(files, "SECONDS", 0.1 if "slower" in message else 60.0),
            pytest.raises(error, match=message),
        ):
            TARGET.check(case)


def test_a_failure_is_made_smaller() -> None:
    case = TARGET.draw(random.Random(0))
    while len(case["changes"]) < 4:
        case = TARGET.draw(random.Random(str(case)))
    assert [len(one["changes"]) for one in TARGET.simpler(case)] == [3] * 4
    assert not list(TARGET.simpler({**case, "changes": case["changes"][:1]}))
