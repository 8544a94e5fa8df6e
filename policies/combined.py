"""Several policies at once, sorted by the decision that each of them makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from ..codec import short_repr
from ..errors import PolicyError, UnsupportedError
from ..types import StackShape
from .dense import Dense
from .kind import Decision, kind_of
from .protocol import ColumnPolicy, DepthExitPolicy, HoldPolicy, Policy, SplitPolicy, TimeExitPolicy


@short_repr
@dataclass(frozen=True, eq=False)
class Parts:
    """A policy sorted by the decisions that its members make; ``Dense()`` or nothing where none does.

    ``columns``: which columns to compute.
    ``hold``: which layers to hold.
    ``time_exit``: when to exit in time.
    ``depth_exit``: when to exit in depth.
    ``split``: where to split sequences in time; nothing else acts then.
    """

    columns: ColumnPolicy
    hold: tuple[HoldPolicy, ...] = ()
    time_exit: TimeExitPolicy | None = None
    depth_exit: DepthExitPolicy | None = None
    split: SplitPolicy | None = None

    @property
    def acts(self) -> bool:
        """Whether anything may be skipped."""
        return acts(self.columns) or bool(self.hold or self.time_exit or self.depth_exit or self.split)

    @property
    def streams(self) -> bool:
        """Whether timesteps can run as they come: nothing is split, and no exit in depth decides on final states."""
        return self.split is None and (self.depth_exit is None or self.depth_exit.level != "sequence")

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All of them in one row."""
        others = (self.time_exit, self.depth_exit, self.split)
        return (self.columns, *self.hold, *(p for p in others if p is not None))

    def decider(self, shape: StackShape, layer: int) -> HoldPolicy | None:
        """The policy that holds this layer, if it decides for itself."""
        return next((p for p in self.hold if p.decides(shape, layer)), None)


@short_repr
@dataclass(frozen=True, eq=False)
class Combined:
    """Policies of different kinds that act together: ``Combined(Delta(h=0.1), ExitInTime(head, threshold=0.9))``.

    Columns are skipped in the timesteps that run; timesteps and layers are held in sequences that have not exited. At
    most one policy makes each decision; ``SkipTimesteps`` and ``HoldLayers`` may go together.

    Raises:
        PolicyError: not a policy, or two of a kind.
        UnsupportedError: exits in time together with exits in depth of whole sequences, or anything that may act
            together with ``SplitTime``.
    """

    policies: tuple[Policy, ...]

    def __init__(self, *policies: Policy):
        flat: list[Policy] = []
        for p in policies:
            flat += members(p)
        object.__setattr__(self, "policies", tuple(flat))
        self.parts  # noqa: B018 (raises what the docstring says)

    def check(self, shape: StackShape) -> None:
        """Raise what the policies raise if one does not fit the stack."""
        for policy in self.policies:
            if shape.one_step and acts(policy):
                refuse_cell(kind_of(policy).name)
            policy.check(shape)
        for layer in range(shape.num_layers):
            deciders = [type(p).__name__ for p in self.parts.hold if p.decides(shape, layer)]
            if len(deciders) > 1:
                more = f" and {len(deciders) - 2} more" if len(deciders) > 2 else ""
                raise PolicyError(f"layer {layer}: {' and '.join(deciders[:2])}{more} decide on it; keep one of them")
        if shape.bidirectional and any(p.action == "queue_input" for p in self.parts.hold):
            raise UnsupportedError(
                "a policy that queues inputs needs one direction: the backward one would have to wait for inputs that "
                "the forward one still holds back"
            )

    @property
    def parts(self) -> Parts:
        """The policies by decision."""
        found: dict[Decision, list[Any]] = {"columns": [], "hold": [], "time_exit": [], "depth_exit": [], "split": []}
        for p in self.policies:
            found[kind_of(p).decision].append(p)
        # A policy whose settings never let it act is dropped, so that it is never called.
        columns: list[ColumnPolicy] = [p for p in found["columns"] if acts(p)]
        hold: list[HoldPolicy] = found["hold"]
        time: list[TimeExitPolicy] = found["time_exit"]
        depth: list[DepthExitPolicy] = found["depth_exit"]
        split: list[SplitPolicy] = [p for p in found["split"] if acts(p)]
        counts = {"column": len(columns), "time": len(time), "depth": len(depth), "split": len(split)}
        for name, count in counts.items():
            if count > 1:
                raise PolicyError(f"got {count} {name} policies, expected at most one of a kind")
        if any(p.action == "queue_input" for p in hold) and (depth or len(hold) > 1):
            raise UnsupportedError(
                "HoldLayers(mode='queue_input') keeps states exact, which SkipTimesteps and ExitInDepth do not; "
                "combine it with Delta and ExitInTime only"
            )
        if time and depth and depth[0].level == "sequence":
            raise UnsupportedError(
                "exits in time go through all layers timestep by timestep, exits in depth of whole sequences through "
                "all timesteps layer by layer; combine ExitInTime with ExitInDepth(level='step')"
            )
        out = Parts(
            columns[0] if columns else Dense(),
            tuple(filter(acts, hold)),
            next(filter(acts, time), None),
            next(filter(acts, depth), None),
            next(iter(split), None),
        )
        if split and (others := [kind_of(p).name for p in out.policies if acts(p) and p is not out.split]):
            raise UnsupportedError(
                f"{kind_of(split[0]).name} runs the parts of a sequence side by side, and {' and '.join(others)} "
                "decides on each timestep from those before; use one or the other"
            )
        return out


def refuse_cell(policy: str) -> NoReturn:
    """Raise ``PolicyError``: a policy was meant for an ``nn.LSTMCell``."""
    raise PolicyError(
        f"{policy}: got an LSTM cell, which is called for one timestep and keeps nothing between its calls, so there "
        "is nothing to leave out; compress it, or set policies on an nn.LSTM"
    )


def acts(policy: Policy) -> bool:
    """Whether a policy may skip anything: its ``active``, if it has one."""
    return bool(getattr(policy, "active", True))


def members(policy: Policy) -> tuple[Policy, ...]:
    """The policies that a policy joins, or the policy alone."""
    return policy.policies if isinstance(policy, Combined) else (policy,)


def parts(policy: Policy) -> Parts:
    """A policy sorted by decision.

    Raises:
        PolicyError: it makes no kind of decision, or several.
    """
    return policy.parts if isinstance(policy, Combined) else Combined(policy).parts
