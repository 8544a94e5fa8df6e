"""A job that writes what it scored, and can be continued; a process of its own, so that it can be killed.

``python -m tests.ray.job ADDRESS FOLDER``: ``model.alstm`` and ``in/`` are in the folder. While ``halt`` is there too,
the job stands still at the sequence of ``HALT`` timesteps.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import ray
from ray.data.checkpoint import CheckpointConfig

from adaptive_lstm.ray import Scorer
from adaptive_lstm.types import FloatArray

HALT = 23


class Head:
    """The mean output of a sequence; every call leaves a byte in the file ``calls``."""

    def __init__(self, folder: Path, calls: str):
        self._folder, self._calls = folder, calls

    def __call__(self, y: FloatArray) -> float:
        with (self._folder / self._calls).open("ab") as calls:
            calls.write(b".")
        while len(y) == HALT and (self._folder / "halt").exists():
            time.sleep(0.05)
        return float(y.mean())


def run(folder: Path, calls: str = "calls") -> None:
    """Score all that is in the folder and not yet out; calls of the head are counted in a file of that name."""
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig("id", str(folder / "done"), delete_checkpoint_on_success=False)
    try:
        given = {"path": folder / "model.alstm", "head": Head(folder, calls), "outputs": "score"}
        ds = ray.data.read_parquet(str(folder / "in")).map_batches(
            Scorer, fn_constructor_kwargs=given, concurrency=1, num_cpus=1, batch_size=4
        )
        ds.write_parquet(str(folder / "out"))
    finally:
        context.checkpoint_config = None


if __name__ == "__main__":
    ray.init(address=sys.argv[1], log_to_driver=False)
    run(Path(sys.argv[2]))
