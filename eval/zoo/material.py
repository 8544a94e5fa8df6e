"""Material for a calibration on a model of the zoo: sequences in four disjoint parts, a loss, a limit, policies to try.

The unit of a certificate is the sequence, drawn independently. Few of the zoo's records are long lists of independent
sequences; where they are not (a few speakers, meetings, engines, one text), windows are drawn independently, each
place as likely as any other, from records that belong to one part only. A certificate is then exact for windows of the
records of the test part, and says nothing about other records; the fresh part consists of other records and shows how
well it generalizes. ``Material.promise`` names the sequences that a certificate covers.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.losses import Loss

QUICK_LIMIT = 0.2  # few sequences certify nothing stricter


def skipping(model: nn.Module) -> list[al.Family]:
    """The families that need neither a head nor a single stack."""
    deep = any(isinstance(m, nn.LSTM) and m.num_layers > 1 for m in model.modules())
    return [al.Family(al.Delta), al.Family(al.SkipTimesteps), *([al.Family(al.HoldLayers)] if deep else [])]


def skipping_and(*exits: Callable[[nn.Module], al.Family]) -> Callable[[nn.Module], list[al.Family]]:
    """``skipping``, and exits that are made from the adapted model."""
    return lambda model: [*skipping(model), *(make(model) for make in exits)]


def settling_in_time(model: nn.Module) -> al.Family:
    """Exit in time when the translation has settled: for models whose head gives no confidence."""
    del model
    return al.Family(al.ExitInTime)


def settling_in_depth(model: nn.Module) -> al.Family:
    """Exit in depth when two translations agree."""
    del model
    return al.Family(al.ExitInDepth)


@dataclass(frozen=True)
class Material:
    """Sequences of a model, each a batch of one, and the subject of its certificate.

    Args:
        fit, search, test: the splits of ``al.calibrate``.
        fresh: held-out sequences; they show afterwards whether the promise is kept.
        promise: the kind of sequence and the source of the parts, hence the scope of a certificate.
        loss: of one sequence.
        max_loss: the limit.
        families: families of policies to search, from the adapted model, whose heads are its own.
    """

    fit: Sequence[Tensor]
    search: Sequence[Tensor]
    test: Sequence[Tensor]
    fresh: Sequence[Tensor]
    promise: str
    loss: Loss
    max_loss: float
    families: Callable[[nn.Module], list[al.Family]] = skipping

    @classmethod
    def of(
        cls,
        parts: Iterable[Sequence[Tensor]],
        *,
        promise: str,
        loss: Loss,
        max_loss: float,
        families: Callable[[nn.Module], list[al.Family]] = skipping,
    ) -> "Material":
        """From the four parts in their order: fit, search, test, fresh."""
        fit, search, test, fresh = parts
        return cls(fit, search, test, fresh, promise, loss, max_loss, families)

    @property
    def splits(self) -> al.Splits[Tensor]:
        """The splits of a calibration."""
        return al.Splits(self.fit, self.search, self.test)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of sequences per part."""
        return {part: len(getattr(self, part)) for part in ("fit", "search", "test", "fresh")}

    def thinned(self, fit: int, search: int, test: int, fresh: int, max_loss: float) -> "Material":
        """The first sequences of every part, under another limit."""
        return replace(
            self,
            fit=self.fit[:fit],
            search=self.search[:search],
            test=self.test[:test],
            fresh=self.fresh[:fresh],
            max_loss=max_loss,
        )

    def quick(self) -> "Material":
        """Just enough sequences for a smoke test."""
        return self.thinned(8, 16, 40, 16, QUICK_LIMIT)


def drawn(records: Sequence[Tensor], length: int, count: int, seed: int) -> tuple[Tensor, ...]:
    """``count`` windows [1, length, ...] from records [T, ...]: every place is as likely as any other, none is twice.

    Windows may overlap; they are independent all the same, given the records.

    Raises:
        ValueError: the records hold fewer windows.
    """
    places = np.cumsum([0] + [max(0, len(record) - length + 1) for record in records])
    chosen = np.random.default_rng(seed).choice(places[-1], count, replace=False)
    which = np.searchsorted(places, chosen, side="right") - 1
    starts = chosen - places[which]
    return tuple(records[i][s : s + length][None] for i, s in zip(which, starts, strict=True))


def drawn_parts(parts: Iterable[Sequence[Tensor]], length: int, counts: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """``drawn`` windows of every part, a list of records, as many as ``counts`` says."""
    return [drawn(part, length, n, seed) for seed, (part, n) in enumerate(zip(parts, counts, strict=True))]


def parted(items: Sequence[Tensor], counts: Sequence[int], seed: int) -> list[tuple[Tensor, ...]]:
    """Disjoint random parts of the items, as many and as large as ``counts`` says.

    Raises:
        ValueError: there are fewer items.
    """
    chosen = np.random.default_rng(seed).choice(len(items), sum(counts), replace=False)
    return [tuple(items[i] for i in part) for part in np.split(chosen, np.cumsum(counts)[:-1])]


def ranges(record: Tensor, shares: Sequence[float]) -> list[Tensor]:
    """A record [T, ...] in consecutive ranges."""
    ends = (np.cumsum(shares) / np.sum(shares) * len(record)).astype(int)
    return [record[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
