"""``Scorer``: a saved LSTM as a function of batches that Ray's actors construct once."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from .. import deploy
from ..codec import brief, is_whole
from ..errors import InputError, ModelFileError, NonFiniteError, UnsupportedError
from ..execution.threads import MOST_THREADS, at_most
from ..files import FilePath
from ..policies import Policy
from ..runtime.length_batches import in_batches
from ..types import FloatArray
from .certified import in_words
from .columns import Batch, column_of, objects, row_name, sequences_of

Head = Callable[[FloatArray], Any]


class Scorer:
    """Runs the sequences of a batch through a saved LSTM; for ``map_batches`` of Ray Data.

    ::

        scored = ds.map_batches(
            Scorer,
            fn_constructor_kwargs={"path": "/shared/model.alstm", "sequences": "audio"},
            concurrency=8,  # actors; each loads the file once
            num_cpus=1,
            batch_size=256,
        )

    Sequences are sorted by length and run in packs, so that nothing runs behind the end of one; rows stay in their
    order. Results are those of each sequence alone: rounded as in a pack, and bit for bit in int8. Nothing that decides
    results is kept from one batch to the next, so Ray may run a batch again, in any actor, when one has died. All
    columns are passed on but the sequences and their lengths.

    Columns that are added, each left out where its name is None:

    - ``outputs``: outputs of the top layer, [T, D * P] per row; with a head, what it returns.
    - ``final``: h of every cell after the last timestep, [L * D, P] per row.
    - ``activity``: share of the columns of the weights that were computed for the pack that the row was in, 0 to 1; 1
      where the policy skips nothing. ``batch_tokens=1`` makes every sequence a pack of its own.
    - ``certificate``: what calibration guaranteed of the model in the file, in words; "none" where it holds nothing.

    Args:
        path: of the file that ``adaptive_lstm.save(model, path, weights=True)`` wrote, as every node finds it.
        lstm: name of the LSTM in the model; None: the only one.
        sequences: column of the sequences: arrays or nested lists [T, I] of any length each, or one array [N, T, I].
        lengths: column of their lengths, where they are padded; None: they are not.
        outputs: name of an added column, as above; None: it is not added.
        final: the same.
        activity: the same.
        certificate: the same.
        head: called with the outputs [T, D * P] of every sequence; gives what stands in their column instead, a number
            or an array. It travels to the actors, so it must be small or read its own file.
        batch_tokens: timesteps of a pack, counting each sequence as long as the longest; a longer one runs alone.
        threads: that the native core may use, best as many as ``num_cpus``.
        policies: your own classes of policies that the file may hold.

    Raises:
        ModelFileError: the file is missing, damaged, of a newer version, or without weights.
        InputError: no LSTM of this name, several and no name, or an argument out of range.
        UnsupportedError: a policy that is written in Python, or splits in time.
        BackendError: the extension does not load.
    """

    def __init__(
        self,
        path: FilePath,
        *,
        lstm: str | None = None,
        sequences: str = "x",
        lengths: str | None = None,
        outputs: str | None = "y",
        final: str | None = None,
        activity: str | None = "activity",
        certificate: str | None = "certificate",
        head: Head | None = None,
        batch_tokens: int = 8192,
        threads: int = 1,
        policies: Sequence[type[Policy]] = (),
    ):
        for name, value, most in (("batch_tokens", batch_tokens, None), ("threads", threads, MOST_THREADS)):
            if not (is_whole(value) and 1 <= value <= (most or value)):
                upper = f" to {most}" if most else ""
                raise InputError(f"{name}: got {brief(value)}, expected a whole number from 1{upper}")
        if head is not None and not callable(head):
            raise InputError(f"head: got {brief(head)}, expected a function of outputs [T, D * P], or None")
        if head is not None and outputs is None:
            raise InputError("head: got one with outputs=None; name the column that it fills")
        self._read = {"sequences": _name("sequences", sequences), "lengths": _name("lengths", lengths)}
        added = {"outputs": outputs, "final": final, "activity": activity, "certificate": certificate}
        self._added = {role: _name(role, name) for role, name in added.items()}
        _require_different(self._added)
        model = _loaded(path, policies)
        self._lstm = _chosen(model, lstm)
        self._certificate = in_words(model.certificate)
        self._head, self._most, self._threads = head, int(batch_tokens), int(threads)

    def __repr__(self) -> str:
        return f"Scorer({self._lstm})"

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError(
            "a Scorer stays in its process; give map_batches the class, Scorer, and its arguments in "
            "fn_constructor_kwargs, so that every actor loads the file once"
        )

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """Score a batch.

        Args:
            batch: columns by name, [N, ...] each, as ``map_batches`` gives them with its default ``batch_format``.

        Returns:
            The same columns without sequences and lengths, and the added ones.

        Raises:
            InputError: a column is missing, or is there already under the name of an added one; a row that cannot be
                run, with its number and the first columns that tell which it is.
            NonFiniteError: NaN or infinity in a row, and the policy can skip or weights are quantized or pruned.
        """
        column_of(batch, str(self._read["sequences"]), "sequences")
        kept = {name: column for name, column in batch.items() if name not in self._read.values()}
        taken = [name for name in self._added.values() if name in kept]
        if taken:
            raise InputError(
                f"batch: got a column {taken[0]!r} already; drop it before, or give the added one another name in "
                "fn_constructor_kwargs"
            )
        x = sequences_of(batch, str(self._read["sequences"]), self._lstm.shape.input_size, self._read["lengths"])
        found = self._scored(batch, x)
        columns = {name: found[role] for role, name in self._added.items() if name is not None}
        return kept | columns

    def _scored(self, batch: Batch, sequences: Sequence[FloatArray]) -> dict[str, Any]:
        """Every added column by its role."""
        n, shape = len(sequences), self._lstm.shape
        outputs: list[Any] = [None] * n
        final = np.empty((n, shape.num_cells, shape.output_size), np.float32)
        activity = np.empty(n, np.float64)
        for rows in in_batches([len(x) for x in sequences], self._most, mixes=True):
            y, h, activity[rows] = self._run([sequences[i] for i in rows], batch, rows)
            final[rows] = h.swapaxes(0, 1)
            if self._added["outputs"] is not None:
                for row, i in enumerate(rows):
                    outputs[i] = self._output(y[: len(sequences[i]), row])
        certificate = objects([self._certificate] * n)
        return {"outputs": _column(outputs), "final": final, "activity": activity, "certificate": certificate}

    def _run(
        self, pack: Sequence[FloatArray], batch: Batch, rows: Sequence[int]
    ) -> tuple[FloatArray, FloatArray, float]:
        """Outputs [T, B, D * P], states h [L * D, B, P] and activity of sequences, the longest first."""
        lengths = [len(x) for x in pack]
        x = np.zeros((lengths[0], len(pack), pack[0].shape[1]), np.float32)
        for row, one in enumerate(pack):
            x[: len(one), row] = one
        try:
            with at_most(self._threads):
                y, (h, _), stats = self._lstm.run(x, lengths=None if lengths[-1] == lengths[0] else lengths)
        except NonFiniteError as error:
            (wrong, *_) = [i for i, one in zip(rows, pack, strict=True) if not np.isfinite(one).all()]
            raise NonFiniteError(f"{self._read['sequences']}: {row_name(batch, wrong)}: {error}") from None
        return y, h, stats.activity

    def _output(self, y: FloatArray) -> Any:
        """What stands in the column of outputs for a sequence, in memory of its own."""
        own = np.ascontiguousarray(y)
        return own if self._head is None else self._head(own)


def _name(role: str, name: object) -> str | None:
    if name is None and role != "sequences":
        return None
    if not (isinstance(name, str) and name):
        raise InputError(f"{role}: got {brief(name)}, expected the name of a column")
    return name


def _require_different(added: Mapping[str, str | None]) -> None:
    names = [name for name in added.values() if name is not None]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        roles = " and ".join(role for role, name in added.items() if name in twice)
        raise InputError(f"{roles}: got {twice.pop()!r} for both, expected a name each")


def _loaded(path: FilePath, policies: Sequence[type[Policy]]) -> deploy.Model:
    try:
        return deploy.load(path, policies=policies)
    except ModelFileError as error:
        if os.path.exists(path):
            raise
        where = f"seen from {os.getcwd()} on {platform.node()}"  # of a worker, which the caller does not see
        raise ModelFileError(f"path: {error}, {where}; give an absolute path that every node finds") from None


def _chosen(model: deploy.Model, name: str | None) -> deploy.LSTM:
    if name is None:
        return model.lstm
    if name not in model:
        raise InputError(f"lstm: got {brief(name)}, expected one of {', '.join(map(repr, model))}")
    return model[name]


def _column(outputs: Sequence[Any]) -> np.ndarray:
    """A value per row: numbers as numbers, all else as objects, so that Ray finds out whether shapes agree."""
    if outputs and all(isinstance(one, int | float | np.number) for one in outputs):
        return np.asarray(outputs)
    return objects(outputs)
