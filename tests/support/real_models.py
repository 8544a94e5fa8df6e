"""Models of the zoo for tests, which skip those that must be fetched where nobody has."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval import zoo as real
from eval.zoo.base import ZooModel, family


def fetched(name: str, zoo: Path) -> Path:
    """The folder of a model from a package."""
    if reason := real.absent(name, zoo):
        pytest.skip(reason)
    return family(zoo, real.PACKAGED[name].FOLDER)


def loaded(name: str, zoo: Path) -> ZooModel:
    """One model of ``eval.zoo.NAMES``."""
    if name in real.PACKAGED:
        fetched(name, zoo)
    if name == "silero":
        pytest.importorskip("soundfile", reason="the recordings for silero are FLAC, which soundfile reads (extra dev)")
    return real.load(name, zoo)
