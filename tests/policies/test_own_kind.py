"""A kind of policy that is defined here, and nowhere else, goes all the way: search, certificate, file, statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.policies import Change, FitData, PolicyKind, Sweep
from adaptive_lstm.types import Counts, StackShape

from ..support.helpers import assert_equal, infer
from ..support.small_task import adapted_classifier, drawn

if TYPE_CHECKING:
    from adaptive_lstm.policies import HoldAction


@dataclass(frozen=True)
class LargestChanges:
    """A column policy: send a recurrent column if its change is above a share of the largest one in its row."""

    share: float = 0.0
    least: float = 0.0
    kind: ClassVar[PolicyKind]

    def check(self, shape: StackShape) -> None:
        """Fits every stack."""

    def thresholded(self, site: al.Site) -> bool:
        return site.operand == "h" and self.share > 0

    def send(self, site: al.Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        change = (value - sent).abs()
        return change > torch.clamp(self.share * change.amax(1, keepdim=True), min=self.least)


@dataclass(frozen=True)
class HoldSmallInputs:
    """A hold policy: hold all layers while the largest feature is small."""

    level: float = 0.0
    cap: int = 4
    action: ClassVar[HoldAction] = "hold_gates"
    kind: ClassVar[PolicyKind]

    def check(self, shape: StackShape) -> None:
        """Fits every stack."""

    def decides(self, shape: StackShape, layer: int) -> bool:
        return layer == 0

    def should_hold(self, shape: StackShape, cell: int, change: Change) -> torch.Tensor:
        return change.x.abs().amax(1) < self.level


def sweeps_of_changes(family: al.Family, fit: FitData) -> Iterator[Sweep]:
    assert fit.sensitivities  # as it needs them
    yield Sweep("changes", "changes", (0.05, 0.2), lambda share: {n: family.make(share=share) for n in fit.shapes})


def sweeps_of_holding(family: al.Family, fit: FitData) -> Iterator[Sweep]:
    assert not fit.sensitivities
    yield Sweep("small", "small", (0.4, 1.5), lambda level: {n: family.make(level=level) for n in fit.shapes})


def one_mac_per_column(policy: LargestChanges, shape: StackShape, counts: Counts) -> int:
    return sum(cell.h_possible for cell in counts.columns)


LargestChanges.kind = PolicyKind(
    name="LargestChanges",
    decision="columns",
    searched=("share",),
    sweeps=sweeps_of_changes,
    needs=frozenset({"sensitivity"}),
    macs=one_mac_per_column,
)
HoldSmallInputs.kind = PolicyKind(
    name="HoldSmallInputs", decision="hold", searched=("level",), sweeps=sweeps_of_holding
)


@pytest.mark.parametrize(
    ("family", "own_macs"),
    [(al.Family(LargestChanges, least=1e-6), True), (al.Family(HoldSmallInputs, cap=3), False)],
)
def test_a_kind_of_ones_own(family: al.Family, own_macs: bool, tmp_path: Path) -> None:
    model, data, path = adapted_classifier(), drawn(60), tmp_path / "model"
    result = al.calibrate(
        model,
        data,
        loss=al.losses.disagreement,
        max_loss=0.2,
        confidence=0.9,
        policies=[family],
        objective="macs",
        progress=False,
    )
    assert result.certified
    policy: Any = result.policy
    assert type(policy) is family.policy
    assert {name: getattr(policy, name) for name in family.settings} == family.settings
    fast: Any = result.apply(model, force=True)
    x = data[0][0]
    expected = infer(fast, x)
    stats = fast.lstm.last_run
    assert str(stats.route) == f"reference: policy {family.name} is written in Python"
    assert stats.policy_macs == (stats.timesteps * model.lstm.hidden_size if own_macs else 0)
    assert stats.macs < stats.macs_possible

    al.save(fast, path, certificate=result.certificate)
    loaded: Any = al.load(path, adapted_classifier(), policies=[family.policy])
    assert loaded.lstm.policy == policy
    assert_equal(infer(loaded, x), expected)
    assert loaded.lstm.last_run == stats
    assert al.load_certificate(path, policies=[family.policy]) == result.certificate
    message = f"got a policy '{family.name}', expected one of .*policies=\\[MyPolicy\\]"
    with pytest.raises(al.errors.ModelFileError, match=message):
        al.load(path, adapted_classifier())
    with pytest.raises(al.errors.ModelFileError, match=message):
        al.load_certificate(path)


class Inherited(al.Delta):
    """Decides otherwise than its parent, whose row is not its own."""

    def send(self, site: al.Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(value, dtype=torch.bool)


def test_rows_are_not_inherited(tmp_path: Path) -> None:
    model = adapted_classifier()
    model.lstm.policy = Inherited(h=1.0)
    infer(model, drawn(1)[0][0])
    assert model.lstm.last_run is not None
    assert model.lstm.last_run.route.reason == "policy Inherited is written in Python"
    (counts,) = model.lstm.last_run.columns
    assert counts.h_sent == counts.h_possible - model.lstm.hidden_size  # all but the zeros of the first step
    with pytest.raises(al.errors.InputError, match="Inherited is Python code"):
        al.save(model, tmp_path / "model")
    with pytest.raises(al.errors.PolicyError, match=r"got <class .*Inherited'>, expected a class of policies"):
        al.Family(Inherited)


def test_what_is_no_kind_of_ones_own(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Namesake(LargestChanges):
        kind: ClassVar[PolicyKind] = PolicyKind(name="Delta", decision="columns")

    model, path = adapted_classifier(), tmp_path / "model"
    model.lstm.policy = Namesake()
    with pytest.raises(al.errors.InputError, match="a second kind with the name Delta"):
        al.save(model, path)
    model.lstm.policy = al.Dense()
    al.save(model, path)
    for wrong in (Inherited, LargestChanges(), "Delta", Namesake):
        with pytest.raises(al.errors.InputError, match="policies: got"):
            al.load(path, model, policies=[wrong])  # type: ignore[list-item]
