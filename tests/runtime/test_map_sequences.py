"""Many sequences in batches give, in their order, what the model gives for each alone."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, NonFiniteError
from adaptive_lstm.execution.threads import get_num_threads

from ..support.helpers import adapted, assert_close, assert_equal, infer, signal, torch_lstm

I = 5  # noqa: E741 (the letter of the input size everywhere)


def drawn(n: int, longest: int = 40, seed: int = 0) -> list[torch.Tensor]:
    """Sequences [T, I] of random lengths from 1."""
    lengths = torch.randint(1, longest + 1, (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [signal(length, I, seed=seed + i) for i, length in enumerate(lengths)]


class Tagger(nn.Module):
    """Logits [B, T, 3] of both directions, their mean over time [B, 3], and the loudest frame; knows lengths."""

    def __init__(self, *, masks: bool = True):
        super().__init__()
        self.lstm = torch_lstm(I, 9, batch_first=True, bidirectional=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)  # a head that hardly reads the padding would hide it
            self.head, self.masks = nn.Linear(18, 3), masks
        self.eval()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> dict[str, Any]:
        """The three."""
        if lengths is None or not self.masks:
            y = self.head(self.lstm(x)[0])
            return {"logits": y, "of all": (y.mean(1), None)}
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        y = self.head(pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0])
        for row, n in zip(y, lengths.tolist(), strict=True):
            row[n:] = 0
        return {"logits": y, "of all": (y.sum(1) / lengths[:, None], None)}


@pytest.mark.parametrize("tokens", [1, 37, 400, 10**6])
@pytest.mark.parametrize("quantize", ["fp32", "int8"])
def test_an_lstm_gives_what_its_calls_give(quantize: str, tokens: int) -> None:
    for options in ({}, {"bidirectional": True, "batch_first": True}, {"proj_size": 4}):
        lstm, sequences = adapted(I, 33, 2, quantize=quantize, **options), drawn(30)
        found = list(al.map_sequences(lstm, iter(sequences), batch_tokens=tokens, threads=1, window=2))
        for x, got in zip(sequences, found, strict=True):
            want = infer(lstm, x)
            (assert_equal if quantize == "int8" else lambda a, b: assert_close(a, b, "fp32"))(got, want)
            assert not got[0].requires_grad


@pytest.mark.parametrize("policy", [al.Delta.uniform(0.05), al.SkipTimesteps(x_share=0.4), al.HoldLayers(x_share=0.3)])
def test_a_policy_decides_for_each_sequence(policy: al.Policy) -> None:
    lstm, sequences = adapted(I, 16, 2, policy=policy), drawn(20)
    for x, got in zip(sequences, al.map_sequences(lstm, sequences, batch_tokens=100), strict=True):
        assert_close(got, infer(lstm, x), "skipping")


@pytest.mark.parametrize("layout", ["equal", "padded"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_model_gives_what_it_gives_alone(layout: Any, threads: int) -> None:
    model = al.adapt(Tagger())
    sequences = drawn(40, 12)
    found = list(al.map_sequences(model, sequences, layout=layout, threads=threads, batch_tokens=50, window=1))
    for x, got in zip(sequences, found, strict=True):
        want = infer(model, x[None])
        assert got.keys() == want.keys()
        assert got["of all"][1] is None
        assert_close((got["logits"], got["of all"][0]), (want["logits"][0], want["of all"][0][0]), "fp32")


def test_classes_as_many_as_timesteps_are_not_cut() -> None:
    """[B, 3] beside batches of three timesteps."""
    model = Tagger()
    sequences = [torch.ones(n, I) for n in (3, 2, 1, 3, 2)]
    for x, got in zip(sequences, al.map_sequences(model, sequences, layout="padded"), strict=True):
        assert got["of all"][0].shape == (3,)
        assert got["logits"].shape == (len(x), 3)


def test_a_model_of_packed_sequences() -> None:
    lstm, head = torch_lstm(I, 8, 2), nn.Linear(8, 2)

    def model(packed: PackedSequence) -> tuple[PackedSequence, torch.Tensor]:
        y, (h, _) = lstm(packed)
        return PackedSequence(head(y.data), *y[1:]), head(h[-1])

    sequences = drawn(25)
    for x, (y, last) in zip(sequences, al.map_sequences(model, sequences, layout="packed", threads=2), strict=True):
        want = infer(head, infer(lstm, x)[0])
        assert_close((y, last), (want, want[-1]), "fp32")


@pytest.mark.parametrize("model", [Tagger(masks=False), lambda x: Tagger()(x)["logits"][:, ::2]])
def test_padding_that_changes_results_is_refused(model: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match='choose layout="equal"'):
        list(al.map_sequences(model, drawn(9), layout="padded"))
    assert len(list(al.map_sequences(model, drawn(9)))) == 9


def test_nothing_is_read_or_kept_beyond_a_window() -> None:
    given: list[weakref.ref[torch.Tensor]] = []

    def endless() -> Iterator[torch.Tensor]:
        while True:
            x = torch.zeros(10, I)
            given.append(weakref.ref(x))
            yield x

    results = al.map_sequences(adapted(I, 4), endless(), batch_tokens=40, window=2, threads=1)
    assert not given
    for i in range(100):
        y, _ = next(results)
        assert y.untyped_storage().nbytes() == y.numel() * y.element_size()
        assert len(given) <= i + 8
        gc.collect(0)
        assert sum(ref() is not None for ref in given) <= 8
    assert results.stats.sequences == len(given) == results.stats.timesteps // 10 == 2 * results.stats.batches * 2
    assert results.stats.timesteps_per_second > 0


def test_threads_run_batches_at_once() -> None:
    met = threading.Barrier(3, timeout=60)

    def model(x: torch.Tensor) -> torch.Tensor:
        met.wait()
        assert torch.get_num_threads() == get_num_threads() == 1
        assert not torch.is_grad_enabled()
        return x

    before, sequences = torch.get_num_threads(), [torch.full((4, 1), i) for i in range(12)]
    torch.set_num_threads(2)
    al.set_num_threads(4)
    try:
        found = list(al.map_sequences(model, sequences, threads=3, batch_tokens=4, window=12))
        assert (torch.get_num_threads(), get_num_threads()) == (2, 4)
    finally:
        torch.set_num_threads(before)
        al.set_num_threads(None)
    assert [int(y[0]) for y in found] == list(range(12))


def test_what_a_model_remembers_is_put_back() -> None:
    class Remembers(nn.Module):
        """Carries its state on."""

        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.hx = torch_lstm(I, 4, batch_first=True), None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """The outputs."""
            y, self.hx = self.lstm(x, self.hx)
            return y  # type: ignore[no-any-return]

    model, sequences = Remembers().eval(), drawn(12, 5)
    for x, y in zip(sequences, al.map_sequences(model, sequences), strict=True):
        assert_close(y, infer(model.lstm, x)[0], "fp32")
    assert model.hx is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(4, I + 1), rf"sequence 17: got shape \(4, {I + 1}\).*expected \[T, {I}\]"),
        (torch.zeros(0, I), "sequence 17: got shape .* T at least 1"),
        (torch.zeros(4, I).double(), "sequence 17: got .*float64"),
        (torch.zeros(4, I).to_sparse(), "sequence 17: got a tensor of layout"),
        ("a text", "sequence 17: got str"),
        (None, "sequence 17: got NoneType"),
        (torch.full((4, I), torch.nan), "sequence 17: .* NaN"),
    ],
)
def test_a_bad_sequence_is_named_after_the_results_before_it(bad: Any, message: str) -> None:
    sequences = drawn(30)
    sequences[17] = bad
    lstm = adapted(I, 8, quantize="int8")
    for window in (1, 100):
        found: list[Any] = []
        results = al.map_sequences(lstm, sequences, batch_tokens=60, window=window)
        with pytest.raises(InputError, match=message) as caught:
            found.extend(results)
        assert isinstance(caught.value, NonFiniteError) == (isinstance(bad, torch.Tensor) and bool(bad.isnan().any()))
        assert len(found) == 17
        assert next(results, None) is None


def test_a_sequence_that_a_model_fails_on_is_named() -> None:
    table = nn.Embedding(10, 4).eval()
    tokens = [torch.full((n % 3 + 1,), n % 10) for n in range(20)]
    tokens[11] = torch.tensor([1, 10])
    found: list[torch.Tensor] = []
    with pytest.raises(InputError, match="sequence 11: the model raised IndexError") as caught:
        found.extend(al.map_sequences(table, tokens))
    assert isinstance(caught.value.__cause__, IndexError)
    assert len(found) == 11

    def only_one(x: torch.Tensor) -> torch.Tensor:
        assert len(x) == 1, "one at a time"
        return x

    with pytest.raises(InputError, match=r"sequence 0, in a batch of 6 and not alone: .*one at a time"):
        list(al.map_sequences(only_one, [torch.zeros(3)] * 6))
    with pytest.raises(InputError, match=r"sequence 0: .*shape \(3,\) for a batch of 1 sequences"):
        list(al.map_sequences(lambda x: x[0], [torch.zeros(3)] * 6))


def test_an_error_of_the_iterator_comes_after_the_results() -> None:
    def broken() -> Iterator[torch.Tensor]:
        yield from drawn(5)
        raise OSError("the disk is gone")

    found: list[Any] = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(al.map_sequences(adapted(I, 4), broken()))
    assert len(found) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, "model: got int"),
        ({"model": Tagger().train()}, "training mode"),
        ({"sequences": 3}, "sequences: got int"),
        ({"sequences": "text"}, "sequences: got str"),
        ({"batch_tokens": 0}, "batch_tokens: got 0"),
        ({"threads": 1.5}, "threads: got 1.5"),
        ({"window": None}, "window: got None"),
        ({"layout": "tight"}, "layout: got 'tight', expected one of packed, padded, equal"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"model": adapted(I, 4), "sequences": []}
    with pytest.raises(InputError, match=message):
        al.map_sequences(**given | options)
    assert list(al.map_sequences(adapted(I, 4), [])) == []
