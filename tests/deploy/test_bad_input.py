"""Bad input: the right exception, what came and what is expected, and a stream that is as before."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm import deploy
from adaptive_lstm.errors import InputError, ModelFileError, NonFiniteError, StateError, UnsupportedError

from ..support.artifact_cases import lstm_of, prune
from ..support.helpers import OnReference, native_only, signal
from ..support.policy_cases import SHAPES, depths, head

pytestmark = native_only
T, B, I, P = 6, 2, 5, 9  # noqa: E741 (the letter of the input size everywhere)
X = signal(T, B, I).numpy()


def saved(folder: Path, policy: al.Policy | None = None, way: str = "plain") -> deploy.LSTM:
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(SHAPES[way])).eval()
    fast.quantize, fast.policy = al.Quantize("int8"), policy or al.Delta.uniform(0.05)
    al.save(fast, folder / "model.alstm", weights=True)
    return deploy.load(folder / "model.alstm").lstm


WRONG_X: dict[str, tuple[Any, str]] = {
    "features": (X[..., 1:], r"x: got shape \(6, 2, 4\), expected \[T, B, 5\]"),
    "dimensions": (X[None], r"got shape \(1, 6, 2, 5\)"),
    "one dimension": (X[0, 0], r"got shape \(5,\)"),
    "no timestep": (X[:0], r"got shape \(0, 2, 5\).*a timestep and a row"),
    "no row": (X[:, :0], r"got shape \(6, 0, 5\)"),
    "words": (np.array(["a"]), "expected an array of real numbers"),
    "complex": (X + 1j, "complex.*expected an array of real numbers"),
    "objects": ([[object()]], "object.*expected an array of real numbers"),
    "bools": (X > 0, "bool.*real numbers"),
    "ragged": ([[1.0], [1.0, 2.0]], "x: got"),
    "nothing": (None, "expected an array of real numbers"),
    "number": (3.0, r"shape \(\)"),
}


@pytest.mark.parametrize(("x", "message"), WRONG_X.values(), ids=WRONG_X)
def test_x(tmp_path: Path, x: Any, message: str) -> None:
    lstm = saved(tmp_path)
    with pytest.raises(InputError, match=message):
        lstm.run(x)
    with lstm.stream(B) as stream:
        y = stream.step(X[0])
        before = stream.state
        for call in (stream.step, stream.run):
            if call == stream.run and message.endswith("a row"):
                continue  # a chunk of no timestep is one
            with pytest.raises(InputError):
                call(x)
        np.testing.assert_array_equal(stream.state.h, before.h)
        np.testing.assert_array_equal(stream.state.h[-1], y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite(tmp_path: Path, value: float) -> None:
    lstm, bad = saved(tmp_path), X.copy()
    bad[-1, -1, -1] = value
    zeros = np.zeros((3, B, P), np.float32)
    large = 1e300 * X.astype(np.float64)
    for x, state in ((bad, None), (X, (zeros + value, zeros)), (large, None)):
        with pytest.raises(NonFiniteError, match="NaN or infinity"):
            lstm.run(x, state)
    with lstm.stream(B) as stream:
        stream.run(X)
        before = stream.state
        for call, part in ((stream.run, bad), (stream.step, bad[-1])):
            with pytest.raises(NonFiniteError):
                call(part)
        np.testing.assert_array_equal(stream.state.c, before.c)


WRONG_LENGTHS: dict[str, tuple[Any, str]] = {
    "too few": ([3], "expected 2 whole numbers"),
    "too long": ([3, T + 1], f"got {T + 1}, expected 1 to {T}"),
    "zero": ([0, 3], f"got 0, expected 1 to {T}"),
    "negative": ([-1, 3], f"got -1, expected 1 to {T}"),
    "floats": ([1.0, 2.0], "whole numbers"),
    "words": ("ab", "whole numbers"),
    "ragged": ([[1], [1, 2]], "whole numbers"),
}


@pytest.mark.parametrize(("lengths", "message"), WRONG_LENGTHS.values(), ids=WRONG_LENGTHS)
def test_lengths(tmp_path: Path, lengths: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"lengths: .*{message}"):
        saved(tmp_path).run(X, lengths=lengths)


ZEROS = np.zeros((3, B, P), np.float32)
WRONG_STATES: dict[str, tuple[Any, str]] = {
    "no pair": (ZEROS, r"expected \(h, c\)"),
    "one": ((ZEROS,), r"expected \(h, c\)"),
    "rows": ((ZEROS[:, :1], ZEROS), r"h: got shape \(3, 1, 9\), expected \(3, 2, 9\)"),
    "width": ((ZEROS, ZEROS[..., :8]), r"c: got shape \(3, 2, 8\), expected \(3, 2, 9\)"),
    "nothing": ((None, ZEROS), "h: got object"),
}


@pytest.mark.parametrize(("state", "message"), WRONG_STATES.values(), ids=WRONG_STATES)
def test_given_state(tmp_path: Path, state: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        saved(tmp_path).run(X, state)


def spoiled(state: Any) -> list[dict[str, Any]]:
    return [{"c": torch.from_numpy(state.c)}, {"sent_x": state.sent_x[:2]}, {"sent_h": list(state.sent_h)}]


def test_stream_state(tmp_path: Path) -> None:
    lstm = saved(tmp_path)
    with lstm.stream(B) as stream:
        stream.run(X)
        state = stream.state
        wrong: list[Any] = [
            None,
            lstm.stream(B + 1).state,
            dataclasses.replace(state, h=state.h.astype(np.float64)),
            dataclasses.replace(state, c=state.c * np.float32("nan")),
            *(dataclasses.replace(state, **fields) for fields in spoiled(state)),
        ]
        for one in wrong:
            with pytest.raises(StateError):
                stream.state = one
        np.testing.assert_array_equal(stream.state.h, state.h)
        for rows in ([B], [-1], [True] * 3, [0.5], [[0]], [[0], [0, 1]]):
            with pytest.raises(InputError, match="rows: got"):
                stream.reset(rows=rows)
        np.testing.assert_array_equal(stream.state.h, state.h)
        for size in (0, -1, 1.5, True, None, 2**26 + 1, 2**40):
            with pytest.raises(InputError, match="batch_size"):
                lstm.stream(size)  # type: ignore[arg-type]


def test_what_cannot_stream(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="bidirectional LSTM cannot stream"):
        saved(tmp_path, way="both ways").stream()
    policy = depths(SHAPES["plain"], "sequence")["head"]
    with pytest.raises(UnsupportedError, match="use level='step'"):
        saved(tmp_path, policy).stream()


def test_files(tmp_path: Path) -> None:
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(SHAPES["plain"])).eval()
    al.save(fast, tmp_path / "settings.alstm")
    with pytest.raises(ModelFileError, match="settings without weights"):
        deploy.load(tmp_path / "settings.alstm")
    with pytest.raises(ModelFileError):
        deploy.load(tmp_path / "missing.alstm")
    prune(fast)
    al.save(fast, tmp_path / "cut.alstm", weights=True)
    whole = (tmp_path / "cut.alstm").read_bytes()
    (tmp_path / "cut.alstm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError):
        deploy.load(tmp_path / "cut.alstm")


def test_a_policy_in_python(tmp_path: Path) -> None:
    from adaptive_lstm.execution.native_policy import runs_natively
    from adaptive_lstm.policies import parts

    policy = OnReference(al.Delta.uniform(0.05))
    assert not runs_natively(parts(policy), SHAPES["plain"])
    stack = saved(tmp_path)._stack
    assert stack is not None
    from adaptive_lstm.artifact.stacks import read_stacks

    (found,) = read_stacks(tmp_path / "model.alstm").by_name.values()
    settings = dataclasses.replace(found.settings, policy=policy)
    with pytest.raises(UnsupportedError, match="written in Python, and deploy runs none"):
        deploy.LSTM(dataclasses.replace(found, settings=settings), "the LSTM")


def test_any_memory_will_do(tmp_path: Path) -> None:
    lstm = saved(tmp_path)
    want = lstm.run(X).y
    wide = np.zeros((T, B, 2 * I), np.float32)
    wide[..., ::2] = X
    shifted = np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(X.shape)
    for same in (
        X.swapaxes(0, 1).copy().swapaxes(0, 1),
        wide[..., ::2],
        X[::-1].copy()[::-1],
        X.astype(">f4"),
        X.astype(np.float64),
        X.tolist(),
        shifted,
    ):
        np.testing.assert_array_equal(lstm.run(same).y, want)
        np.testing.assert_array_equal(lstm.stream(B).run(same), lstm.stream(B).run(X))
        np.testing.assert_array_equal(lstm.stream(B).step(np.asarray(same)[0]), lstm.stream(B).step(X[0]))


def test_many_threads(tmp_path: Path) -> None:
    lstm = saved(tmp_path, al.ExitInTime(head(P), threshold=0.4, check_every=2))
    inputs = [signal(T, 1 + n, I, seed=n).numpy() for n in range(8)]
    want, got = [lstm.run(x).y for x in inputs], dict[int, bool]()

    def work(n: int) -> None:
        got[n] = all(np.array_equal(lstm.run(inputs[n]).y, want[n]) for _ in range(50))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == dict.fromkeys(range(8), True)
