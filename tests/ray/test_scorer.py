"""A batch in, the same rows in the same order out, with what the LSTM gives for each alone. Without Ray."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm import deploy
from adaptive_lstm.errors import InputError, ModelFileError, NonFiniteError, UnsupportedError
from adaptive_lstm.execution.threads import get_num_threads
from adaptive_lstm.ray import Scorer

from ..support.artifact_cases import certificate_of, lstm_of, tagger
from ..support.helpers import TOLERANCE, infer_natively, native_only, signal
from ..support.policy_cases import SHAPES

pytestmark = native_only
ROOT = Path(__file__).resolve().parents[2]
I, P = 5, 9  # noqa: E741 (the letter of the input size everywhere)
LENGTHS = (7, 30, 1, 7, 33, 2, 130, 7)


def saved(folder: Path, way: str = "plain", quantize: Any = "int8", policy: al.Policy | None = None) -> Any:
    """An LSTM and the path of its file."""
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(SHAPES[way])).eval()
    fast.quantize, fast.policy = al.Quantize(quantize), policy or al.Dense()
    al.save(fast, folder / "model.alstm", weights=True)
    return fast, folder / "model.alstm"


def drawn(lengths: tuple[int, ...] = LENGTHS, width: int = I) -> list[np.ndarray]:
    return [signal(n, width, seed=n + i).numpy() for i, n in enumerate(lengths)]


def column(values: list[Any]) -> np.ndarray:
    """As Ray hands over rows of different shapes."""
    out = np.empty(len(values), object)
    for i, value in enumerate(values):
        out[i] = value
    return out


def batch_of(sequences: list[Any], **more: Any) -> dict[str, Any]:
    return {"id": np.arange(100, 100 + len(sequences)), "x": column(sequences)} | more


@pytest.mark.parametrize("tokens", [1, 40, 8192])
@pytest.mark.parametrize("way", SHAPES)
@pytest.mark.parametrize("quantize", ["fp32", "int8"])
def test_every_row_gets_what_its_sequence_gives_alone(tmp_path: Path, way: str, quantize: str, tokens: int) -> None:
    fast, path = saved(tmp_path, way, quantize)
    sequences = drawn()
    out = Scorer(path, final="h", batch_tokens=tokens)(batch_of(sequences))
    assert list(out) == ["id", "y", "h", "activity", "certificate"]
    assert out["id"].tolist() == list(range(100, 108))
    for x, y, h in zip(sequences, out["y"], out["h"], strict=True):
        want, (last, _) = infer_natively(fast, torch.from_numpy(x)[:, None])
        atol = 0 if quantize == "int8" else TOLERANCE["fp32"]
        np.testing.assert_allclose(y, want[:, 0], rtol=0, atol=atol)
        np.testing.assert_allclose(h, last[:, 0], rtol=0, atol=atol)


FORMS: dict[str, Callable[[list[np.ndarray]], Any]] = {
    "arrays": column,
    "float64": lambda some: column([x.astype(np.float64) for x in some]),
    "strided": lambda some: column([np.repeat(x, 2, axis=1)[:, ::2] for x in some]),
    "lists of Parquet": lambda some: column([column(list(x)) for x in some]),
    "nested lists": lambda some: column([x.tolist() for x in some]),
    "a list": list,
    "read-only": lambda some: column([np.frombuffer(x.tobytes(), np.float32).reshape(x.shape) for x in some]),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_a_column(tmp_path: Path, form: Callable[[list[np.ndarray]], Any]) -> None:
    score = Scorer(saved(tmp_path)[1])
    want = score(batch_of(drawn()))
    got = score({"x": form(drawn())})
    for a, b in zip(got["y"], want["y"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_sequences_of_one_length_and_padded_ones(tmp_path: Path) -> None:
    score, equal, sequences = Scorer(saved(tmp_path)[1]), np.stack(drawn((6,) * 4)), drawn()
    for a, b in zip(score({"x": equal})["y"], score({"x": column(list(equal))})["y"], strict=True):
        np.testing.assert_array_equal(a, b)
    padded = np.full((len(LENGTHS), max(LENGTHS), I), np.nan, np.float32)
    for row, x in zip(padded, sequences, strict=True):
        row[: len(x)] = x
    by_length = Scorer(saved(tmp_path)[1], lengths="n")
    got = by_length({"x": padded, "n": np.array(LENGTHS)})
    assert list(got) == ["y", "activity", "certificate"]
    for a, b in zip(got["y"], score({"x": column(sequences)})["y"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_feature_needs_no_axis(tmp_path: Path) -> None:
    fast = al.adapt(torch.nn.LSTM(1, 4).eval())
    al.save(fast, tmp_path / "model.alstm", weights=True)
    score, flat = Scorer(tmp_path / "model.alstm"), np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    want = score({"x": flat[..., None]})["y"]
    for given in (flat, column(list(flat)), column(flat.tolist())):
        np.testing.assert_array_equal(np.stack(score({"x": given})["y"]), np.stack(want))


def test_a_head_fills_the_column_of_outputs(tmp_path: Path) -> None:
    path, sequences = saved(tmp_path)[1], drawn()
    whole = Scorer(path)(batch_of(sequences))["y"]
    mean = Scorer(path, head=lambda y: float(y.mean()), outputs="score")(batch_of(sequences))["score"]
    np.testing.assert_array_equal(mean, [float(y.mean()) for y in whole])
    assert mean.dtype == np.float64
    last = Scorer(path, head=lambda y: y[-1])(batch_of(sequences))["y"]
    np.testing.assert_array_equal(np.stack(list(last)), [y[-1] for y in whole])


def test_no_rows_in_none_out(tmp_path: Path) -> None:
    for empty in (np.empty(0, object), np.zeros((0, 3, I))):
        out = Scorer(saved(tmp_path)[1])({"x": empty, "id": np.empty(0, int)})
        assert {name: len(values) for name, values in out.items()} == dict.fromkeys(
            ("id", "y", "activity", "certificate"), 0
        )


def test_activity(tmp_path: Path) -> None:
    fast, path = saved(tmp_path, quantize="fp32", policy=al.Delta.uniform(0.05))
    out = Scorer(path, batch_tokens=1)(batch_of(drawn()))
    for x, active in zip(drawn(), out["activity"], strict=True):
        infer_natively(fast, torch.from_numpy(x)[:, None])
        assert active == pytest.approx(fast.last_run.activity)
    together = Scorer(path)(batch_of(drawn()))["activity"]
    assert len(set(together)) == 1  # one pack
    assert min(out["activity"]) < together[0] < max(out["activity"])


def test_columns_by_name(tmp_path: Path) -> None:
    given = {"audio": column(drawn()), "y": np.arange(8)}
    out = Scorer(
        saved(tmp_path)[1], sequences="audio", outputs=None, final="state", activity=None, certificate="proof"
    )(given)
    assert list(out) == ["y", "state", "proof"]
    assert out["y"].tolist() == list(range(8))
    assert out["state"].shape == (8, 3, P)
    assert set(given) == {"audio", "y"}


def test_certificates_in_words(tmp_path: Path) -> None:
    fast = al.adapt(lstm_of(SHAPES["plain"]))
    fast.policy = al.Delta.uniform(0.1)
    path = tmp_path / "model.alstm"
    said = {}
    for name, certificate in (
        ("none", None),
        ("passed", certificate_of(fast)),
        ("failed", certificate_of(fast, certified=False)),
    ):
        al.save(fast, path, certificate=certificate, weights=True)
        (said[name],) = set(Scorer(path)(batch_of(drawn()))["certificate"])
    weights = certificate_of(fast).weights[:12]
    text = f"flips <= 0.1 at confidence 0.95: Delta(tau=0.1); weights {weights}"
    assert said == {"none": "none", "passed": text, "failed": f"not certified ({text})"}


def test_one_lstm_of_several(tmp_path: Path) -> None:
    _, fast = tagger()
    al.save(fast, tmp_path / "model.alstm", weights=True)
    with pytest.raises(InputError, match="holds 2 LSTMs, expected one"):
        Scorer(tmp_path / "model.alstm")
    with pytest.raises(InputError, match=r"lstm: got 'below', expected one of 'below.lstm', 'above'"):
        Scorer(tmp_path / "model.alstm", lstm="below")
    assert Scorer(tmp_path / "model.alstm", lstm="below.lstm")(batch_of(drawn()))["y"][0].shape == (7, 18)


def test_batches_do_not_know_of_each_other(tmp_path: Path) -> None:
    """Whatever ran before, in whatever order: Ray may run a batch again, elsewhere."""
    path = saved(tmp_path, quantize="fp32", policy=al.Delta.uniform(0.05))[1]
    first, second = batch_of(drawn()), batch_of(drawn((50, 3)))
    score = Scorer(path)
    before = [y.tobytes() for y in score(first)["y"]]
    score(second)
    with pytest.raises(InputError):
        score({"x": column([np.zeros((3, I + 1), np.float32)])})
    assert [y.tobytes() for y in score(first)["y"]] == before
    assert [y.tobytes() for y in Scorer(path)(first)["y"]] == before


def test_actors_construct_their_own(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(Scorer)) is Scorer
    with pytest.raises(UnsupportedError, match="give map_batches the class, Scorer, and its arguments"):
        pickle.dumps(Scorer(saved(tmp_path)[1]))


def test_threads_are_those_of_the_actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as named inside the native core, and as before around it."""
    path, before = saved(tmp_path)[1], get_num_threads()
    run, seen = deploy.LSTM.run, list[int]()

    def watched(*given: Any, **named: Any) -> deploy.Output:
        seen.append(get_num_threads())
        return run(*given, **named)

    monkeypatch.setattr(deploy.LSTM, "run", watched)
    heads = Scorer(path, threads=3, head=lambda _: get_num_threads())(batch_of(drawn()))["y"]
    assert set(seen) == {3}
    assert set(heads) == {before} == {get_num_threads()}


WRONG: dict[str, tuple[Any, str]] = {
    "no mapping": ([1, 2], r"batch: got list, expected a dict of arrays.*batch_format=\"numpy\""),
    "missing": ({"id": [1], "wave": [2]}, r"got columns 'id', 'wave', expected 'x'; name yours.*\"sequences\""),
    "no columns": ({}, "got columns none, expected 'x'"),
    "width": (batch_of([np.zeros((3, 4))]), r"x: row 0 of the batch \(id=100\): got shape \(3, 4\), expected \[T, 5\]"),
    "width of all": ({"x": np.zeros((2, 3, 4))}, r"x: row 0 of the batch: got shape \(3, 4\), expected \[T, 5\]"),
    "flat": (batch_of([np.zeros(15)]), r"got shape \(15,\), expected \[T, 5\]"),
    "flat in all": ({"x": np.zeros((2, 15))}, r"got shape \(15,\), expected \[T, 5\]"),
    "numbers": ({"x": np.zeros(3)}, r"row 0 of the batch \(x=0.0\): .*float64 of shape \(\)"),
    "null": (batch_of([*drawn(), None]), r"row 8 of the batch \(id=108\): got null.*leave such rows out"),
    "null of pandas": (batch_of([float("nan")]), r"row 0 of the batch \(id=100\): got null"),
    "null inside": (batch_of([column([np.zeros(5), None])]), "got timesteps of null and width 5"),
    "null number": (batch_of([[[1.0, 2, 3, 4, None]]]), "expected an array of real numbers"),
    "ragged": (batch_of([column([np.zeros(5), np.zeros(4)])]), "got timesteps of width 4 and width 5"),
    "ragged lists": (batch_of([[[1.0] * 5, [1.0] * 4]]), "id=100.*expected"),
    "empty": (batch_of([np.zeros((0, I))]), r"id=100\): got no timestep, expected \[T, 5\], T at least 1"),
    "empty list": (batch_of([[]]), "got no timestep"),
    "empty of all": ({"x": np.zeros((2, 0, I))}, "row 0 of the batch: got no timestep"),
    "words of all": ({"x": np.array(["a", "b"])}, "row 0 of the batch.*expected an array of real numbers"),
    "words": (batch_of(["words"]), "got <U5 of shape .*expected an array of real numbers"),
    "objects": (batch_of([object()]), "expected an array of real numbers"),
    "bools": (batch_of([np.zeros((3, I), bool)]), "got bool"),
    "taken": (batch_of(drawn(), y=np.zeros(8)), "got a column 'y' already; drop it before"),
}


@pytest.mark.parametrize(("batch", "message"), WRONG.values(), ids=WRONG)
def test_wrong_batches(tmp_path: Path, batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scorer(saved(tmp_path)[1])(batch)


@pytest.mark.parametrize("value", [0, 8, -1, 1.5, None, "3", True])
def test_wrong_lengths(tmp_path: Path, value: Any) -> None:
    score = Scorer(saved(tmp_path)[1], lengths="n")
    with pytest.raises(InputError, match=r"n: row 1 of the batch.*expected a whole number from 1 to 7"):
        score({"x": np.zeros((2, 7, I)), "n": column([7, value])})
    with pytest.raises(InputError, match=r"expected 'n'; name yours.*\"lengths\""):
        score({"x": np.zeros((2, 7, I))})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_told_by_its_row(tmp_path: Path, value: float) -> None:
    sequences = drawn()
    sequences[4] = sequences[4].copy()
    sequences[4][-1, 2] = value
    with pytest.raises(NonFiniteError, match=r"x: row 4 of the batch \(id=104\): .*NaN or infinity"):
        Scorer(saved(tmp_path)[1])(batch_of(sequences))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_tokens": 0}, "batch_tokens: got 0, expected a whole number from 1"),
        ({"batch_tokens": 1.5}, "batch_tokens: got 1.5"),
        ({"threads": 0}, "threads: got 0, expected a whole number from 1 to 256"),
        ({"threads": 257}, "threads: got 257"),
        ({"head": "mean"}, "head: got 'mean', expected a function"),
        ({"head": len, "outputs": None}, "head: got one with outputs=None"),
        ({"sequences": None}, "sequences: got None, expected the name of a column"),
        ({"final": ""}, "final: got '', expected the name of a column"),
        ({"final": "y"}, "outputs and final: got 'y' for both"),
    ],
)
def test_wrong_options(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scorer(saved(tmp_path)[1], **options)


def test_files_that_are_not_there_or_hold_no_weights(tmp_path: Path) -> None:
    with pytest.raises(
        ModelFileError, match=r"no such file: .*nothing\.alstm, seen from .* an absolute path that every"
    ):
        Scorer(tmp_path / "nothing.alstm")
    (tmp_path / "words.alstm").write_text("words")
    with pytest.raises(ModelFileError, match=r"words\.alstm") as told:
        Scorer(tmp_path / "words.alstm")
    assert "every node" not in str(told.value)
    al.save(al.adapt(lstm_of(SHAPES["plain"])), tmp_path / "settings.alstm")
    with pytest.raises(ModelFileError, match="weights"):
        Scorer(tmp_path / "settings.alstm")


WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "scipy", "tqdm", "ray")))
import numpy as np
from adaptive_lstm.ray import Scorer
out = Scorer(sys.argv[1])({"x": np.zeros((3, 4, 5), np.float32), "key": np.arange(3)})
print(*out, out["y"][0].shape)
"""


def test_workers_need_no_torch(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, str(saved(tmp_path)[1])],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "key y activity certificate (4, 9)\n"
