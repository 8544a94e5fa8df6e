"""The costs of exported C: every run is exact, and what is skipped saves instructions."""

from __future__ import annotations

import shutil

import pytest

from eval.embedded import __main__ as embedded

from ..support.c_builds import require_emulator
from ..support.eval_records import Run, of


@pytest.mark.slow
def test_embedded(run: Run) -> None:
    require_emulator("m4")
    found = of(run(embedded.main, "--models", "1 x 32", "--processors", "m4"), "1 x 32")
    assert all(record["exact"] for record in found.values())
    dense, half, fifth = (found[f"m4 int8 {share:g}"] for share in embedded.ACTIVITIES)
    assert dense["activity"] == 1
    assert abs(half["activity"] - 0.5) < 0.05
    assert abs(fifth["activity"] - 0.2) < 0.05
    assert fifth["instructions"] < half["instructions"]
    assert dense["instructions"] < found["m4 fp32 1"]["instructions"]
    assert all(record["code"] < 12 * 1024 and record["stack"] < 2048 for record in found.values())


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="not installed: arm-none-eabi-gcc, qemu-system-arm"):
        embedded.main(["--processors", "m4"])
