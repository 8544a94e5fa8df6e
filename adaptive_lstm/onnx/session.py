"""``Session``: an ONNX file behind the interface of ``onnxruntime.InferenceSession``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import nn

from ..codec import brief
from ..errors import InputError
from ..runtime.lstm import AdaptiveLSTM
from .cut import plan
from .load import stacks_of
from .model import OnnxModel, keys_in
from .part import as_array
from .scope import Scope, read
from .stack import Stack
from .values import Value


class Session:
    """An ONNX file whose LSTMs are ``AdaptiveLSTM`` and whose other nodes ONNX Runtime runs.

    ``model`` is a ``torch.nn.Module``: what ``calibrate``, ``compress``, ``save`` and ``load`` take and give; assign
    what they return. ``lstms`` are the modules in it. LSTMs and ONNX Runtime use up to ``get_num_threads()`` threads.
    Threads may share a session.

    Args:
        path: an ONNX file, or the bytes of one. LSTMs may lie in the main graph and in the branches of an If.

    Raises:
        UnsupportedError: a package of the extra ``onnx`` is missing, an LSTM cannot be served (``load_lstms`` says
            which), or it lies in the body of a Loop or a Scan.
        ModelFileError: the file cannot be read, or holds no LSTM.
    """

    def __init__(self, path: str | PathLike[str] | bytes):
        file = read(path)
        scope = Scope(file.graph, file.opset_import)
        found = stacks_of(scope)
        keys = _keys(stack for some in found.values() for stack in some)
        inputs = [Value.of(one) for one in file.graph.input if one.name in scope.inputs]
        outputs = [Value.of(one) for one in file.graph.output]
        cut = plan(scope, found, keys, {value.name: value.type for value in inputs})
        used = keys_in(cut)
        self._key_of = {stack.name: key for stack, key in keys.items() if key in used}
        modules = {key: stack.module() for stack, key in keys.items() if key in used}
        self._model = OnnxModel(cut, inputs, outputs, modules)

    @property
    def model(self) -> OnnxModel:
        """The graph as a module, in eval mode; assign a copy with other settings.

        Assigning something else than a copy of it raises ``InputError`` and changes nothing.
        """
        return self._model

    @model.setter
    def model(self, model: nn.Module) -> None:
        if not isinstance(model, OnnxModel) or not torch.equal(model.around, self._model.around):
            raise InputError(f"model: got {type(model).__name__}, expected a copy of this session's model")
        self._model = model

    @property
    def lstms(self) -> dict[str, AdaptiveLSTM]:
        """The LSTMs by the names of their nodes, joined as ``load_lstms`` joins them."""
        modules = self._model.lstms
        return {name: modules[key] for name, key in self._key_of.items()}  # type: ignore[misc]

    def get_inputs(self) -> list[Value]:
        """Name, shape and type of every input."""
        return list(self._model.inputs)

    def get_outputs(self) -> list[Value]:
        """Name, shape and type of every output."""
        return list(self._model.outputs)

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """Run the graph.

        Args:
            output_names: which outputs, in this order; None: all.
            input_feed: an array for every input, by name.

        Returns:
            The outputs as arrays.

        Raises:
            InputError: names, dtypes or shapes that the graph does not have; nothing was run.
        """
        known = [value.name for value in self._model.outputs]
        names = known if output_names is None else list(output_names)
        if unknown := [name for name in names if name not in known]:
            raise InputError(f"output_names: got {', '.join(map(repr, unknown))}, expected some of {', '.join(known)}")
        if not isinstance(input_feed, Mapping):
            raise InputError(f"input_feed: got {brief(input_feed)}, expected a dict of arrays by the names of inputs")
        with torch.no_grad():
            values = self._model.compute(input_feed)
        return [as_array(values[name]) for name in names]


def _keys(stacks: Iterable[Stack]) -> dict[Stack, str]:
    """A name for the module of every stack: that of its node where ``nn.ModuleDict`` takes it."""
    keys: dict[Stack, str] = {}
    empty = nn.ModuleDict()
    for stack in stacks:
        key = stack.name.replace(".", "_")
        while key in keys.values() or hasattr(empty, key):
            key += "_"
        keys[stack] = key
    return keys
