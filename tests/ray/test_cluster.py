"""A cluster of three CPUs on this machine: every row once and right, whichever process dies."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.ray import Scorer
from adaptive_lstm.types import FloatArray
from eval import bulk_ray

from ..support.eval_records import Run
from ..support.helpers import adapted, native_only, signal

ray = pytest.importorskip("ray", reason="Ray is not installed; make test-services installs it and runs this")
pyarrow = pytest.importorskip("pyarrow", reason="comes with Ray")
parquet = pytest.importorskip("pyarrow.parquet", reason="comes with Ray")
pytestmark = [
    native_only,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # it warns of itself
]
ROOT = Path(__file__).resolve().parents[2]
I = 3  # noqa: E741 (the letter of the input size everywhere)
ROWS, FILES = 24, 4


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # of workers, for what is defined in these tests
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is written into the home directory
        patch.setenv("RAY_DATA_PARQUET_BIN_PACKING_BYTES", "1")  # else all files are read as one
        ray.init(num_cpus=3, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
        ray.shutdown()


@pytest.fixture
def lstm(tmp_path: Path) -> al.AdaptiveLSTM:
    """In ``model.alstm``; the sequences of ``drawn`` are in ``in/``."""
    fast = adapted(I, 16, 2, quantize="int8")
    al.save(fast, tmp_path / "model.alstm", weights=True)
    (tmp_path / "in").mkdir()
    kind = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
    for first in range(0, ROWS, ROWS // FILES):
        ids = range(first, first + ROWS // FILES)
        rows = {"id": list(ids), "x": pyarrow.array([x.tolist() for x in drawn()[first : ids.stop]], kind)}
        parquet.write_table(pyarrow.table(rows), tmp_path / "in" / f"{first:03}.parquet")
    return fast


def drawn() -> list[torch.Tensor]:
    """The lengths differ; the last is ``job.HALT``."""
    return [signal(1 + (i * 7) % 37 if i < ROWS - 1 else 23, I, seed=i) for i in range(ROWS)]


def wanted(lstm: al.AdaptiveLSTM) -> list[FloatArray]:
    return [y.numpy() for y, _ in al.map_sequences(lstm, drawn())]


def scored(folder: Path, **options: Any) -> list[dict[str, Any]]:
    """Rows by id, through two actors."""
    given = {"path": folder / "model.alstm", **options}
    ds = ray.data.read_parquet(str(folder / "in")).map_batches(
        Scorer, fn_constructor_kwargs=given, concurrency=2, num_cpus=1, batch_size=4
    )
    return sorted(ds.take_all(), key=lambda row: int(row["id"]))


def test_what_map_sequences_gives(lstm: al.AdaptiveLSTM, tmp_path: Path) -> None:
    rows = scored(tmp_path)
    assert [row["id"] for row in rows] == list(range(ROWS))
    for row, want in zip(rows, wanted(lstm), strict=True):
        np.testing.assert_array_equal(row["y"], want)
        assert row["activity"] == 1.0
        assert row["certificate"] == "none"


def test_a_worker_that_dies_loses_nothing(lstm: al.AdaptiveLSTM, tmp_path: Path) -> None:
    died = tmp_path / "died"

    def once(y: FloatArray) -> FloatArray:
        if len(y) == 23 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signals.SIGKILL)
        return np.append(y[-1], ["torch" in sys.modules])

    rows = scored(tmp_path, head=once)
    assert died.exists()
    assert [row["id"] for row in rows] == list(range(ROWS))
    for row, want in zip(rows, wanted(lstm), strict=True):
        np.testing.assert_array_equal(row["y"], [*want[-1], False])


def test_a_job_that_dies_is_continued(lstm: al.AdaptiveLSTM, tmp_path: Path) -> None:
    from .job import run

    (tmp_path / "halt").touch()
    address = ray.get_runtime_context().gcs_address
    with subprocess.Popen([sys.executable, "-m", "tests.ray.job", address, str(tmp_path)], cwd=ROOT) as job:
        while job.poll() is None and not committed(tmp_path):
            time.sleep(0.05)
        job.kill()
    (tmp_path / "halt").unlink()
    done = committed(tmp_path)
    assert 0 < len(done) < ROWS
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")}
    run(tmp_path, "continued")  # a worker of the killed job may still count its last call
    table = ray.data.read_parquet(str(tmp_path / "out")).take_all()
    scores = {row["id"]: row["score"] for row in table}
    assert sorted(row["id"] for row in table) == list(range(ROWS))
    np.testing.assert_array_equal([scores[i] for i in range(ROWS)], [float(y.mean()) for y in wanted(lstm)])
    assert (tmp_path / "continued").stat().st_size == ROWS - len(done)
    assert any(path.exists() and path.read_bytes() == content for path, content in before.items())


def committed(folder: Path) -> list[int]:
    """The rows that are written for good."""
    found = [path for path in (folder / "done").glob("*.parquet") if not path.name.endswith(".pending.parquet")]
    return [one for path in found for one in parquet.read_table(path)["id"].to_pylist()]


def test_the_row_that_cannot_be_run_is_told(lstm: al.AdaptiveLSTM, tmp_path: Path) -> None:
    rows = [{"id": i, "x": np.zeros((3, I + (i == 5)), np.float32)} for i in range(8)]
    given = {"path": tmp_path / "model.alstm"}
    blocks = ray.data.from_items(rows, override_num_blocks=1)
    ds = blocks.map_batches(Scorer, fn_constructor_kwargs=given, concurrency=1, num_cpus=1)
    with pytest.raises(Exception, match=r"InputError: x: row \d of the batch \(id=5\): got shape \(3, 4\)"):
        ds.materialize()


def test_measuring(run: Run) -> None:
    arguments = (
        "--quick",
        "--shapes",
        "3,8,1",
        "--precisions",
        "int8",
        "--cores",
        "1",
        "--blocks",
        "2",
        "--together",
        "1",
        "--rounds",
        "1",
    )
    (record,) = run(bulk_ray.main, *arguments)
    assert record["rates"].keys() == {"mapped", "scorer", "ray", "ray with start"}
    assert all(rate > 0 for rate in record["rates"].values())
    assert record["share"] == pytest.approx(record["rates"]["ray"] / record["rates"]["mapped"])
    assert record["verdict"] == ("PASS" if record["share"] >= bulk_ray.GOAL else "MISS")
