"""The graph of an ONNX file as a module: LSTMs as ``AdaptiveLSTM``, the rest in ONNX Runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..model_io import Opaque
from ..runtime.lstm import AdaptiveLSTM
from .cut import Branch, Plan
from .part import Part
from .stack_call import StackCall, as_tensor
from .values import Value, check


class OnnxModel(Opaque):
    """``Session.model``: tensors in, tensors out; its LSTMs are in ``lstms``.

    Gradients end where ONNX Runtime computes. Parameters want none; a copy or a pickle shares the parts.

    Args:
        plan: the graph, cut at its LSTMs.
        inputs: of the graph.
        outputs: of the graph.
        lstms: the modules of its stacks, by their keys in the plan.
    """

    def __init__(
        self, plan: Plan, inputs: Sequence[Value], outputs: Sequence[Value], lstms: Mapping[str, AdaptiveLSTM]
    ):
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.lstms = nn.ModuleDict(dict(lstms))
        self._plan = plan
        digest = hashlib.sha256(b"".join(part.digest() for part in _parts(plan))).digest()
        self.around: torch.Tensor
        # So that certificates and files tell two models with the same LSTMs apart.
        self.register_buffer("around", torch.frombuffer(bytearray(digest), dtype=torch.uint8))
        self.eval().requires_grad_(False)

    def forward(self, /, *args: Any, **named: Any) -> Any:
        """Run the graph.

        Args:
            args: inputs [as the graph states] in its order, tensors or arrays.
            named: the other inputs by name.

        Returns:
            The output, or a tuple of all outputs if the graph has several.

        Raises:
            InputError: inputs that the graph does not have, or does not have so; nothing was run.
        """
        if len(args) > len(self.inputs):
            raise InputError(f"inputs: got {len(args)}, expected {len(self.inputs)}: {self._names()}")
        given = {value.name: arg for value, arg in zip(self.inputs, args, strict=False)}
        if twice := given.keys() & named.keys():
            raise InputError(f"inputs: got {', '.join(sorted(twice))} twice, by place and by name")
        values = self.compute({**given, **named})
        found = tuple(as_tensor(values[output.name]) for output in self.outputs)
        return found[0] if len(found) == 1 else found

    def compute(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All values of a run by name, as arrays or tensors; inputs are checked first."""
        check(given, self.inputs)
        values = dict(given)
        self._run(self._plan, values)
        return values

    def _run(self, plan: Plan, values: dict[str, Any]) -> None:
        values.update(plan.constants)
        for step in plan.steps:
            if isinstance(step, Part):
                values.update(step.run(values))
            elif isinstance(step, StackCall):
                values.update(step.run(self.lstms[step.key], values))  # type: ignore[arg-type]
            else:
                body = step.bodies[bool(values[step.condition])]
                self._run(body, values)
                values.update(zip(step.outputs, [values[name] for name in body.outputs], strict=True))

    def _names(self) -> str:
        return ", ".join(value.name for value in self.inputs)


def _parts(plan: Plan) -> Iterator[Part]:
    for step in plan.steps:
        if isinstance(step, Part):
            yield step
        elif isinstance(step, Branch):
            for body in step.bodies:
                yield from _parts(body)


def keys_in(plan: Plan) -> set[str]:
    """The keys of the modules that a plan calls."""
    found = set()
    for step in plan.steps:
        if isinstance(step, StackCall):
            found.add(step.key)
        elif isinstance(step, Branch):
            found |= {key for body in step.bodies for key in keys_in(body)}
    return found
