"""Contents of memory: every bit counts, wherever it stands; what moved is followed; doubt compares everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from adaptive_lstm.execution import contents
from adaptive_lstm.execution.backend import native
from adaptive_lstm.execution.contents import Contents, HashedContents, Regions

TURN = 4096  # timesteps in which everything is compared

Make = Callable[[Regions], Contents]


def plain(regions: Regions) -> Contents:
    return contents.contents_of(regions, always=False)


def always(regions: Regions) -> Contents:
    return contents.contents_of(regions, always=True)


MAKERS = [pytest.param(HashedContents, id="hashed"), pytest.param(plain, id="plain"), pytest.param(always, id="always")]


def regions_of(*arrays: np.ndarray) -> list[tuple[int, int]]:
    return [(a.ctypes.data, a.nbytes) for a in arrays]


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [1, 2, 7, 33, 255, 256, 257, 1000])
def test_every_bit_counts(make: Make, size: int) -> None:
    values = noise(size)
    seen = make(regions_of(values))
    bits = values.view(np.uint8)
    for at in {0, 1, 3, bits.size // 2, bits.size - 1}:
        for bit in range(8):
            bits[at] ^= np.uint8(1 << bit)
            assert not seen.whole()
            bits[at] ^= np.uint8(1 << bit)
    assert seen.whole()


@pytest.mark.parametrize("make", MAKERS)
def test_signs_of_zero_and_order_count(make: Make) -> None:
    values, other = np.zeros(600, np.float32), noise(600)
    seen = make(regions_of(values, other))
    values[300] = -0.0
    assert not seen.whole()
    values[300] = 0.0
    other[[0, 8]] = other[[8, 0]]
    assert not seen.whole()
    other[[0, 8]] = other[[8, 0]]
    assert seen.whole()
    other[:512] = np.concatenate([other[256:512], other[:256]])
    assert not seen.whole()


@pytest.mark.parametrize("size", [40, 5000, 300_000])
def test_a_turn_compares_everything(size: int) -> None:
    values = noise(size)
    seen = plain(regions_of(values, noise(17)))
    values[size // 3] += 1.0
    looks = [seen.look(8) for _ in range(TURN // 8 + 1)]
    assert not all(looks)
    values[size // 3] = noise(size)[size // 3]
    assert seen.look(1)


@pytest.mark.parametrize("change", ["scale", "clip", "zero", "small", "add", "gate"])
def test_dense_writes_are_seen_at_the_next_look(change: str) -> None:
    values = noise(4 * 5000)
    seen = plain(regions_of(values))
    if change == "scale":
        values *= 0.5
    elif change == "clip":
        np.clip(values, -1, 1, out=values)
    elif change == "zero":
        values[:] = 0
    elif change == "small":
        values[np.abs(values) < 0.1] = 0
    elif change == "add":
        values += 1e-3
    else:
        values[5000:10000] = 1.0
    assert not seen.look(1)


@pytest.mark.parametrize("make", MAKERS)
def test_doubt_compares_everything_once(make: Make) -> None:
    values = noise(100_000)
    for doubt in (lambda seen: seen.doubt(), lambda seen: contents.doubt_all()):
        seen = make(regions_of(values))
        assert seen.look(1)
        values[50_001] += 1.0
        doubt(seen)
        assert not seen.look(1)
        values[50_001] = noise(100_000)[50_001]
        assert seen.look(1)
        assert seen.looks == 2


@pytest.mark.parametrize("make", MAKERS)
def test_what_moved_is_followed(make: Make) -> None:
    values, other = noise(3000), noise(70, seed=1)
    seen = make(regions_of(values, other))
    copy = values.copy()
    moved = seen.moved(regions_of(copy, other), [False, True])
    assert moved is not None
    assert moved.looks == 1
    copy[2999] = 0.0
    assert not moved.whole()
    assert seen.whole()
    assert seen.moved(regions_of(copy, other), [False, True]) is None
    assert seen.moved(regions_of(values[:-1], other), [False, True]) is None


def test_addresses_are_checked() -> None:
    if not native():
        pytest.skip("no native extension")
    with pytest.raises(ValueError, match="must not be null"):
        plain([(0, 4)])
    assert plain([]).look(5)
    assert plain([(0, 0)]).whole()
