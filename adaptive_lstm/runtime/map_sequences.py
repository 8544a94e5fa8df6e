"""``map_sequences``: a model over any number of sequences of different lengths, in batches, results in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ..codec import brief, is_iterable, is_one_of, is_whole
from ..errors import AdaptiveLSTMError, InputError
from ..execution.threads import at_most, get_num_threads
from ..execution.uncompiled import uncompiled
from ..model_io.memory import memory_kept
from ..progress import Progress
from .length_batches import in_batches
from .lstm import AdaptiveLSTM
from .sequence_batches import Layout, Model, batches_of
from .sequence_windows import SequenceCheck, windows

BATCHES_PER_THREAD = 2  # in a window at least, so that none waits long for the others


@dataclass(frozen=True)
class BulkStats:
    """What ``map_sequences`` has run so far.

    ``sequences``, ``timesteps``: that the model has run; what follows a sequence in its row of a batch is not counted.
    ``batches``: that it was called with.
    ``seconds``: that took, without reading the sequences and what is done with the results.
    """

    sequences: int = 0
    timesteps: int = 0
    batches: int = 0
    seconds: float = 0.0

    @property
    def timesteps_per_second(self) -> float:
        """Throughput; 0 before anything has run."""
        return self.timesteps / self.seconds if self.seconds else 0.0


@uncompiled
def map_sequences(
    model: Model,
    sequences: Iterable[torch.Tensor],
    *,
    batch_tokens: int = 8192,
    threads: int | None = None,
    layout: Layout | None = None,
    window: int = 8,
    progress: bool = False,
) -> SequenceMap:
    """Run a model on many sequences of different lengths; what it returns for each comes in their order.

    ::

        for y, (h, c) in al.map_sequences(fast.lstm, recordings):  # an iterator, also over one
            ...
        results = al.map_sequences(fast, texts, layout="padded", threads=4, progress=True)
        labels = [y.argmax() for y in results]
        print(results.stats.timesteps_per_second)

    Sequences are read ahead window by window. Those of a window are sorted by length, run in batches, and put in order
    again, so memory is that of a window and its results, however many sequences there are. Do not write into a sequence
    before its result has come.

    Results are those of the model for each sequence alone, without the dimension of the batch: rounded as in a batch,
    and bit for bit in int8. An ``nn.LSTM`` or ``AdaptiveLSTM`` gives what its call with ``x`` [T, I] gives, ``output,
    (h_n, c_n)``. Every result has memory of its own and no gradients.

    A sequence that cannot be run ends the iteration with an error that names its number, from 0, after the results of
    all before it.

    Args:
        model: a module in eval mode, or any function that calls one. It takes batches in the layout, and returns
            tensors with a row for each sequence first (also in tuples, lists and dicts), or a ``PackedSequence``.
        sequences: [T, ...] each, all of one dtype and of the same sizes behind T; for an LSTM [T, I].
        batch_tokens: timesteps of a batch, counting each sequence as long as the longest; a longer one runs alone.
        threads: batches that run at once, each in a thread of its own, while torch and the native core take one for
            each. None: as many as ``set_num_threads`` allows for an ``AdaptiveLSTM``, and 1 for any other model, which
            several threads would call at once; the threads inside its calls are then as ever.
        layout: how the model takes a batch of sequences. None: "packed" for an LSTM, "equal" for any other model.

            - "packed": a ``PackedSequence``, the longest first.
            - "padded": [B, T, ...], the longest first, with zeros behind the shorter ones; and ``lengths=`` [B] where
              it has an argument of this name. Outputs [B, T, ...] are cut to the lengths. Padding must not change
              results: the first batch of different lengths is checked by one sequence that also runs alone.
            - "equal": [B, T, ...]; only sequences of one length share a batch. Right for every model.
        window: batches' worth of timesteps that are read ahead; two per thread at least.
        progress: show a bar with the throughput, where stderr is a terminal.

    Raises:
        InputError: an argument is out of range, or the model is in training mode; while iterating, a sequence of a
            wrong shape, dtype or device, or one for which the model raises an error.
    """
    if not callable(model):
        raise InputError(f"model: got {type(model).__name__}, expected a torch.nn.Module or a function")
    if isinstance(model, nn.Module) and any(
        m.training for m in model.modules() if m is model or isinstance(m, nn.LSTM)
    ):
        raise InputError("the model is in training mode; call .eval() on it first")
    if isinstance(sequences, str | bytes | Mapping | PackedSequence) or not is_iterable(sequences):
        raise InputError(f"sequences: got {type(sequences).__name__}, expected tensors [T, ...], in a list for example")
    for name, value in (("batch_tokens", batch_tokens), ("window", window), ("threads", threads)):
        if not (is_whole(value) and value >= 1) and not (name == "threads" and value is None):
            raise InputError(f"{name}: got {brief(value)}, expected a whole number from 1")
    if layout is not None and not is_one_of(layout, get_args(Layout)):
        raise InputError(f"layout: got {brief(layout)}, expected one of {', '.join(get_args(Layout))}")
    if threads is None:
        threads = get_num_threads() if isinstance(model, AdaptiveLSTM) else 1
    if layout is None:
        layout = "packed" if isinstance(model, nn.LSTM) else "equal"
    return SequenceMap(model, sequences, int(batch_tokens), int(threads), layout, int(window), progress=progress)


class SequenceMap(Iterator[Any]):
    """Results of ``map_sequences``, one by one."""

    def __init__(
        self,
        model: Model,
        sequences: Iterable[torch.Tensor],
        batch_tokens: int,
        threads: int,
        layout: Layout,
        window: int,
        *,
        progress: bool,
    ):
        self._model, self._sequences, self._threads = model, sequences, threads
        self._batches, self._most = batches_of(model, layout), batch_tokens
        self._ahead = batch_tokens * max(window, BATCHES_PER_THREAD * threads)
        self._stats = BulkStats()
        self._results = self._mapped(show=progress)

    def __iter__(self) -> SequenceMap:
        return self

    def __next__(self) -> Any:
        return next(self._results)

    @property
    def stats(self) -> BulkStats:
        """What was run so far."""
        return self._stats

    def _mapped(self, *, show: bool) -> Iterator[Any]:
        total = len(self._sequences) if isinstance(self._sequences, Sized) else None
        with (
            Progress("mapping", "sequence", show=show, total=total) as bar,
            ThreadPoolExecutor(self._threads) as workers,  # none starts before it is needed
        ):
            first = 0
            for window, refused in windows(self._sequences, self._ahead, SequenceCheck(self._model)):
                results = self._results_of(window, workers, bar)
                for i, result in enumerate(results, first):
                    if isinstance(result, _Failure):
                        raise result.of_sequence(i) from result.error
                    yield result
                first += len(window)
                if refused is not None:
                    raise refused

    def _results_of(self, window: Sequence[torch.Tensor], workers: ThreadPoolExecutor, bar: Progress) -> list[Any]:
        """A result, or a failure, for each of some sequences."""
        batches = list(in_batches([len(x) for x in window], self._most, mixes=self._batches.mixes))
        given = [[window[i] for i in batch] for batch in batches]
        results: list[Any] = [None] * len(window)
        with self._threads_for_us():
            begin, before = time.perf_counter(), self._stats
            found = map(self._run, given) if self._threads == 1 else workers.map(self._run, given)
            for batch, some in zip(batches, found, strict=True):
                for i, result in zip(batch, some, strict=True):
                    results[i] = result
                ran = sum(len(window[i]) for i in batch)
                seconds, old = before.seconds + time.perf_counter() - begin, self._stats
                self._stats = BulkStats(old.sequences + len(batch), old.timesteps + ran, old.batches + 1, seconds)
                bar.advance(len(batch))
                bar.note(f"{self._stats.timesteps_per_second:,.0f} timesteps/s")
        return results

    def _run(self, sequences: Sequence[torch.Tensor]) -> list[Any]:
        """A result, or a failure, for each sequence of a batch."""
        try:
            with torch.no_grad(), self._memory_kept():
                return self._batches.run(sequences)
        except Exception as error:  # noqa: BLE001 (a user's model may raise anything)
            if len(sequences) == 1:
                return [_Failure(error)]
            together = _Failure(error, len(sequences))
        each = [self._run([x])[0] for x in sequences]
        return each if any(isinstance(one, _Failure) for one in each) else [together] * len(sequences)

    def _memory_kept(self) -> AbstractContextManager[None]:
        model = self._model  # threads share what it remembers, and an LSTM alone remembers nothing
        if self._threads > 1 or not isinstance(model, nn.Module) or isinstance(model, nn.LSTM):
            return nullcontext()
        return memory_kept(model)

    @contextmanager
    def _threads_for_us(self) -> Iterator[None]:
        """Where several threads of ours run inside the block, torch's operations and the native core take one each."""
        if self._threads == 1:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with at_most(1):
                yield
        finally:
            torch.set_num_threads(before)


class _Failure(NamedTuple):
    """What a sequence gave instead of a result, alone or only in a batch of so many."""

    error: Exception
    rows: int = 1

    def of_sequence(self, number: int) -> AdaptiveLSTMError:
        """The error, with the number of the sequence; what is not of the package becomes an ``InputError``."""
        where = f"sequence {number}" + (f", in a batch of {self.rows} and not alone" if self.rows > 1 else "")
        if isinstance(self.error, AdaptiveLSTMError):
            return type(self.error)(f"{where}: {self.error}")
        return InputError(f"{where}: the model raised {type(self.error).__name__}: {self.error}")
