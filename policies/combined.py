"""Several policies at once, and which kind of question each of them answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import PolicyError, UnsupportedError
from ..types import StackShape
from .dense import Dense
from .protocol import ColumnPolicy, DepthExitPolicy, HoldPolicy, Policy, TimeExitPolicy


@dataclass(frozen=True, eq=False)
class Parts:
    """A policy sorted by the question that its members answer. ``hold``: from the lowest deciding layer up."""

    columns: ColumnPolicy
    hold: tuple[HoldPolicy, ...] = ()
    time_exit: TimeExitPolicy | None = None
    depth_exit: DepthExitPolicy | None = None

    def decider(self, shape: StackShape, layer: int) -> HoldPolicy | None:
        """The policy that holds this layer, if it decides for itself."""
        return next((p for p in self.hold if p.decides(shape, layer)), None)


@dataclass(frozen=True, eq=False)
class Combined:
    """Policies of different kinds that act together: ``Combined(Delta(0.1), ExitInTime(head, 0.9))``.

    Columns are left out in the timesteps that run, timesteps and layers are held in sequences that have not left. At
    most one policy of each kind; ``SkipTimesteps`` and ``HoldLayers`` may go together.

    Raises:
        PolicyError: not a policy, or two of a kind.
        UnsupportedError: exits in time together with exits in depth of whole sequences.
    """

    policies: tuple[Policy, ...]

    def __init__(self, *policies: Policy):
        flat: list[Policy] = []
        for p in policies:
            flat += p.policies if isinstance(p, Combined) else [p]
        object.__setattr__(self, "policies", tuple(flat))
        self.parts  # noqa: B018 (raises what the docstring says)

    def check(self, shape: StackShape) -> None:
        """Raise what the policies raise if one does not fit the stack."""
        for policy in self.policies:
            policy.check(shape)
        for layer in range(shape.num_layers):
            deciders = [type(p).__name__ for p in self.parts.hold if p.decides(shape, layer)]
            if len(deciders) > 1:
                raise PolicyError(f"layer {layer}: {' and '.join(deciders)} both decide on it; leave one of them out")
        if shape.bidirectional and any(p.action == "queue_input" for p in self.parts.hold):
            raise UnsupportedError(
                "a policy that queues inputs needs one direction: the backward one would have to wait for inputs that "
                "the forward one still holds back"
            )

    @property
    def parts(self) -> Parts:
        """The policies by kind."""
        found: dict[str, list[Any]] = {mark: [] for mark in ("send", "should_hold", "check_every", "checks_after")}
        for p in self.policies:
            if not isinstance(p, Policy):
                raise PolicyError(f"got {type(p).__name__}, which lacks check(); see adaptive_lstm.policies.Policy")
            marks = [mark for mark in found if hasattr(p, mark)]
            if len(marks) != 1:
                raise PolicyError(
                    f"{type(p).__name__} answers {len(marks)} kinds of question, expected one: ColumnPolicy (send), "
                    "HoldPolicy (should_hold), TimeExitPolicy (check_every) or DepthExitPolicy (checks_after); see "
                    "adaptive_lstm.policies"
                )
            found[marks[0]].append(p)
        skipping: list[ColumnPolicy] = [c for c in found["send"] if not isinstance(c, Dense)]
        holding: list[HoldPolicy] = found["should_hold"]
        time: list[TimeExitPolicy] = found["check_every"]
        depth: list[DepthExitPolicy] = found["checks_after"]
        for name, count in (("column", len(skipping)), ("time", len(time)), ("depth", len(depth))):
            if count > 1:
                raise PolicyError(f"got {count} {name} policies, expected at most one of a kind")
        exact = [p for p in holding if p.action == "queue_input"]
        if exact and (depth or len(holding) > 1):
            raise UnsupportedError(
                "HoldLayers(mode='queue_input') keeps states exact, which SkipTimesteps and ExitInDepth do not; "
                "combine it with Delta and ExitInTime only"
            )
        if time and depth and depth[0].level == "sequence":
            raise UnsupportedError(
                "exits in time go through all layers timestep by timestep, exits in depth of whole sequences through "
                "all timesteps layer by layer; combine ExitInTime with ExitInDepth(level='step')"
            )
        # A policy whose settings never let it act is left out: it is not even asked.
        return Parts(
            skipping[0] if skipping else Dense(),
            tuple(p for p in holding if getattr(p, "active", True)),
            next((p for p in time if getattr(p, "active", True)), None),
            next((p for p in depth if getattr(p, "active", True)), None),
        )


def parts(policy: Policy) -> Parts:
    """A policy sorted by kind.

    Raises:
        PolicyError: it answers no kind of question, or several.
    """
    return policy.parts if isinstance(policy, Combined) else Combined(policy).parts
