"""Several threads give the bits of one: rows of a batch, directions, and layers one behind the other in time."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm import _native
from adaptive_lstm.execution.threads import MOST_THREADS
from adaptive_lstm.types import StackShape

from ..support.helpers import adapted, always_native, infer, signal
from ..support.policy_cases import FAMILIES
from ..support.whole_batches import Ran, forward, stack_of

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch's own

RAGGED = [23] * 40 + [17] * 20 + [9] * 3 + [8] * 9 + [1] * 60


@pytest.fixture
def threads() -> Iterator[None]:
    """For tests that set the number of threads."""
    yield
    al.set_num_threads(None)


def both(
    shape: StackShape, policy: al.Policy, precision: Any, rows: int, sizes: list[int] | None = None, steps: int = 150
) -> tuple[Ran, Ran]:
    """One batch on one thread and on three."""
    native = stack_of(shape, policy, precision)
    rows = sizes[0] if sizes else rows
    x = signal(steps, rows, shape.input_size, step=0.4).transpose(0, 1)
    if sizes:
        x = torch.cat([x[:n, t % steps] for t, n in enumerate(sizes)])
    h, c = (
        signal(rows, shape.num_cells, width, seed=seed).transpose(0, 1).tanh()
        for seed, width in enumerate((shape.output_size, shape.hidden_size))
    )
    one, three = (forward(native, x, sizes, (h, c), 128, n) for n in (1, 3))
    return one, three


def assert_the_same(one: Ran, other: Ran) -> None:
    assert torch.equal(one.y, other.y)
    assert torch.equal(one.h, other.h)
    assert torch.equal(one.c, other.c)
    assert (one.counts == other.counts).all()
    assert one.exits == other.exits
    assert one.threads == 1


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(
    ("shape", "used"),
    [
        (StackShape(5, 33, 3), 3),
        (StackShape(5, 33, 1), 1),
        (StackShape(7, 130, 2), 2),
        (StackShape(5, 19, 4, proj_size=7), 3),
        (StackShape(5, 33, 3, bidirectional=True), 2),
        (StackShape(5, 19, 1, 7, bidirectional=True), 2),
    ],
)
def test_one_row_or_many(shape: StackShape, used: int, precision: Any, ragged: bool) -> None:
    one, three = both(shape, al.Dense(), precision, 1)
    assert_the_same(one, three)
    assert three.threads == used
    one, three = both(shape, al.Dense(), precision, 23, RAGGED if ragged else None)
    assert_the_same(one, three)
    assert three.threads == 3


@pytest.mark.parametrize(("precision", "hidden"), [("fp32", 264), ("bf16", 370), ("int8", 520)])
def test_units_of_large_layers(precision: Any, hidden: int) -> None:
    for layers, rows, steps in ((1, 1, 150), (1, 3, 40), (2, 1, 1)):  # one timestep: layers cannot follow each other
        one, three = both(StackShape(7, hidden, layers), al.Dense(), precision, rows, steps=steps)
        assert_the_same(one, three)
        assert three.threads == 3
    one, three = both(StackShape(7, hidden, 1), al.Dense(), precision, 3, [3] * 40 + [2] * 33 + [1] * 9)
    assert_the_same(one, three)
    assert three.threads == 3


def test_rows_beyond_the_range_of_integers_stay_together() -> None:
    native, x = stack_of(StackShape(7, 520, 1), al.Dense(), "int8"), torch.randn(1, 30, 7)
    for most, used in ((0.9, 3), (1.5, 1)):
        given = torch.full((1, 1, 520), most), torch.zeros(1, 1, 520)
        one, three = (forward(native, x, None, given, 128, n) for n in (1, 3))
        assert_the_same(one, three)
        assert three.threads == used


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("shape", "policy", "_streams"), FAMILIES)
def test_every_policy(shape: StackShape, policy: al.Policy, _streams: bool, packed: bool) -> None:
    precision = "int8" if packed else "fp32"
    assert_the_same(*both(shape, policy, precision, 23, RAGGED[30:90] if packed else None, steps=40))
    one, three = both(shape, policy, precision, 1, steps=40)
    assert_the_same(one, three)
    assert three.threads == 1  # its rows may do different things


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("thresholds", [{"x": 0.05, "h": 0.02}, {"x": 0.05, "h": 0.0}, {"x": 0.0, "h": 0.02}])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_columns(bidirectional: bool, thresholds: dict[str, float], precision: Any) -> None:
    shape = StackShape(6, 70, 3, bidirectional=bidirectional)
    policy = al.Delta(**thresholds)
    for rows in (1, 3, 23, 140):
        one, three = both(shape, policy, precision, rows)
        assert_the_same(one, three)
    one, three = both(shape, policy, precision, 1)
    assert three.threads > 1


def test_streams_in_chunks_go_on_from_there() -> None:
    shape = StackShape(5, 33, 3)
    native = stack_of(shape, al.Dense(), "int8")
    x, ys = signal(300, 1, 5)[:, 0].contiguous(), list[torch.Tensor]()
    for threads in (1, 3):
        state, y = native.new_state(1), torch.full((300, 33), float("nan"))
        for start, steps in ((0, 130), (130, 1), (131, 169)):
            at = x[start].data_ptr(), 5, 5, y[start].data_ptr(), 33, 33
            assert state.run(*at, steps, check=True, open_ended=True, threads=threads)
        ys.append(y)
    assert torch.equal(*ys)


def test_what_is_not_finite_is_refused() -> None:
    shape = StackShape(5, 9, 2)
    native, x, state = stack_of(shape, al.Dense(), "int8"), torch.randn(40, 6, 5), torch.zeros(2, 40, 9)
    x[38, 3, 2] = float("nan")
    with pytest.raises(AssertionError):
        forward(native, x, None, (state, state), 128, 3)
    x[38, 3, 2] = 0
    assert forward(native, x, None, (state, state), 128, 3).y.isfinite().all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_fork_starts_its_own_threads() -> None:
    shape = StackShape(5, 130, 3)
    native, x, state = stack_of(shape, al.Dense(), "fp32"), torch.randn(1, 300, 5), torch.zeros(3, 1, 130)
    want = forward(native, x, None, (state, state), 128, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of forks beside threads
        child = os.fork()
    if not child:
        same = all(torch.equal(forward(native, x, None, (state, state), 128, 3).y, want.y) for _ in range(3))
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert_the_same(forward(native, x, None, (state, state), 128), forward(native, x, None, (state, state), 128, 3))


AT_EXIT = """
import torch, adaptive_lstm as al
torch.set_num_threads(1)
al.set_num_threads(2)
fast = al.AdaptiveLSTM(32, 128, 3).eval()
with torch.no_grad():
    for _ in range(7):
        fast(torch.randn(200, 1, 32))
"""


def test_the_process_ends_in_silence() -> None:
    run = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")


@torch.no_grad()
def test_calls_take_turns_until_one_way_is_known(threads: None) -> None:
    fast, x = adapted(16, 96, 3, quantize="int8"), torch.randn(200, 1, 16)
    want = infer(fast, x)
    assert fast.last_run is not None
    al.set_num_threads(2)
    used = []
    with always_native():
        for _ in range(6):
            y, (h, c) = infer(fast, x)
            assert torch.equal(y, want[0])
            assert torch.equal(h, want[1][0])
            assert torch.equal(c, want[1][1])
            used.append(fast.last_run.threads)
    assert used == [2, 1, 2, 1, 2, 1]
    infer(fast, x[:3])
    assert fast.last_run.threads == 1  # over before another thread is awake


def test_the_faster_way_stays() -> None:
    for seconds, winner in (({1: 1.0, 4: 0.5}, 4), ({1: 1.0, 4: 0.98}, 1), ({1: 1.0, 4: 2.0}, 1)):
        race = _native.ThreadRace()
        turns = []
        for call in range(10):
            turns.append(race.turn(1, 100, 4))
            race.served(1, 100, turns[-1], seconds[turns[-1]] * (10 if call < 2 else 1))  # the first ones warm up
        assert turns == [4, 1] * 3 + [winner] * 4
        assert race.turn(64, 100, 4) == 4  # another size is another race
        assert race.turn(1, 100, 2) == 2  # so is another number of threads


@pytest.mark.parametrize("n", [0, -1, MOST_THREADS + 1, 1.0, True, "2"])
def test_no_number_of_threads(n: Any, threads: None) -> None:
    al.set_num_threads(3)
    with pytest.raises(al.errors.InputError, match=r"expected a number of threads, 1 to 256"):
        al.set_num_threads(n)
    assert al.get_num_threads() == 3
    al.set_num_threads(None)
    assert al.get_num_threads() == torch.get_num_threads()
