"""What ``deploy`` computes with the files that ``models.py`` has written. Needs numpy, and no torch.

``python outputs.py FOLDER OUT.npz`` saves it: outputs, states and counts of runs and streams of many sizes.
``python outputs.py --same ONE.npz OTHER.npz`` fails unless both hold the same bits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import numpy as np

from adaptive_lstm import deploy
from adaptive_lstm.errors import UnsupportedError
from adaptive_lstm.execution.backend import backend_info
from adaptive_lstm.execution.threads import at_most

FEW, MANY = (1, 5), (1, 2, 3, 4, 6, 7, 8, 13, 31, 70)  # rows
T = 5

Found = Iterator[tuple[str, np.ndarray]]


def signal(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Sums of small exact fractions along time: no library function rounds them."""
    return (random.integers(-64, 65, shape).cumsum(0) / 256).astype(np.float32)


def of_runs(lstm: deploy.LSTM, random: np.random.Generator, rows: int) -> Found:
    """Whole sequences, and from the state after them sequences of different lengths."""
    x = signal(random, T, rows, lstm.shape.input_size)
    y, (h, c), stats = lstm.run(x)
    yield from (("y", y), ("h", h), ("c", c), ("counts", np.array(str((stats.columns, stats.exits, stats.macs)))))
    lengths = random.integers(1, T + 1, rows)
    y, (h, c), stats = lstm.run(x[::-1], (h, c), lengths)
    yield from (("ragged y", y), ("ragged h", h), ("ragged c", c), ("ragged counts", np.array(str(stats.columns))))


def of_stream(lstm: deploy.LSTM, random: np.random.Generator, rows: int) -> Found:
    """Steps, a step ahead, a row that starts anew, and a chunk; nothing where the policy has no streams."""
    try:
        stream = lstm.stream(rows)
    except UnsupportedError:
        return
    x = signal(random, 2 * T, rows, lstm.shape.input_size)
    for t in range(T):
        yield f"step {t}", stream.step(x[t])
    stream.reset(rows=[rows - 1])
    stream.ahead()
    yield "chunk", stream.run(x[T:])
    yield "stream counts", np.array(str(stream.stats.columns))


def kept(value: np.ndarray) -> np.ndarray:
    """Itself, or of a large array its digest."""
    if value.nbytes <= 4096:
        return value
    return np.frombuffer(sha256(value.tobytes()).digest(), np.uint8)


def outputs(folder: Path) -> Found:
    """Of every file."""
    for path in sorted(folder.glob("*.alstm")):
        name, random = path.stem, np.random.default_rng(crc32(path.stem.encode()))
        lstm = deploy.load(path).lstm
        for rows in MANY if name.startswith("wide") and lstm.shape.hidden_size < 200 else FEW:
            for source in (of_runs, of_stream) if rows < 9 else (of_runs,):
                for what, value in source(lstm, random, rows):
                    yield f"{name}, {rows} rows, {what}", kept(value)


def same(one: Path, other: Path) -> int:
    """How many arrays differ, each with a line."""
    a, b = np.load(one), np.load(other)
    assert a.files == b.files, "not of the same models"
    wrong = 0
    for name in a.files:
        x, y = a[name], b[name]
        if x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes():
            continue
        wrong += 1
        if wrong <= 20:
            print(name, f"differs by {np.abs(x - y).max():.3g}" if x.dtype == y.dtype == np.float32 else (x, y))
    print(f"{one.name} and {other.name}: {len(a.files)} arrays, {wrong} differ")
    return wrong


def main(*arguments: str) -> int:
    """The exit status."""
    if arguments[0] == "--same":
        return 1 if same(Path(arguments[1]), Path(arguments[2])) else 0
    with at_most(2):
        found = dict(outputs(Path(arguments[0])))
    np.savez(arguments[1], **found)
    print(f"{backend_info().isa} of {', '.join(backend_info().usable_isas)}: {len(found)} arrays")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
