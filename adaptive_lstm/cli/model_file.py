"""Load the model that an argument of the command line names.

Either `path/to/file.py:factory`, a Python file and a function in it that returns an `nn.Module` when called without
arguments; or a file of weights, in which LSTMs are recognised by the names and shapes that `nn.LSTM` gives its
parameters. Weight files are read without executing code in them.
"""

import importlib.util
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import AdaptiveLSTMError, ModelFileError
from ..model_io import call

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_FIRST = "weight_ih_l0"
_PARAMETER = re.compile(r"(weight|bias)_(ih|hh|hr)_l\d+(_reverse)?")


def load_lstms(spec: str) -> dict[str, nn.LSTM]:
    """The LSTMs of a model, in eval mode.

    Args:
        spec: `path/to/file.py:factory` or a file of weights.

    Returns:
        Place in the model -> LSTM; the place is "" if the model is an LSTM itself.

    Raises:
        ModelFileError: there is none, or `spec` cannot be read.
    """
    if spec.endswith(SUFFIXES):
        lstms = dict(_of_weights(_read(Path(spec))))
    else:
        lstms = dict(_of_module(_build(*_factory(spec, f" or a file {', '.join(SUFFIXES)}"))))
    return _require_lstm(lstms, spec)


def load_model(spec: str) -> nn.Module:
    """A whole model, in eval mode, with at least one LSTM.

    Args:
        spec: `path/to/file.py:factory`; a file of weights alone cannot be run.

    Raises:
        ModelFileError: the model has no LSTM, or `spec` cannot be read.
    """
    model = _build(*_factory(spec, "; weights alone cannot be run")).eval()
    _require_lstm(dict(_of_module(model)), spec)
    return model


def first_output_or_error(model: nn.Module, inputs: Tensor, title: str) -> object:
    """The model's output for its first inputs, so that an error in the user's own code becomes one line.

    Args:
        model: any.
        inputs: of one call.
        title: names the model in the error.

    Raises:
        ModelFileError: the model fails.
    """
    try:
        with torch.no_grad():
            return call(model, inputs)
    except AdaptiveLSTMError:
        raise
    except Exception as error:  # the user's code may raise anything
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelFileError(f"{title} fails on x {list(inputs.shape)}, {inputs.dtype}: {what}") from error


def _factory(spec: str, otherwise: str) -> tuple[Path, str]:
    """The Python file and the name of the function in it; `otherwise` ends the message if `spec` names neither."""
    file, separator, factory = spec.rpartition(":")
    if separator and file.endswith(".py"):
        return Path(file), factory
    if spec.endswith(".py"):
        raise ModelFileError(f"got {spec}, expected the function that builds the model too: {spec}:NAME")
    raise ModelFileError(f"expected path/to/file.py:factory{otherwise}, got {spec!r}")


def _require_lstm(lstms: dict[str, nn.LSTM], spec: str) -> dict[str, nn.LSTM]:
    if not lstms:
        raise ModelFileError(f"no nn.LSTM in {spec}; GRUs and hand-written cells (nn.LSTMCell) are not supported")
    return lstms


def _of_module(module: nn.Module) -> Iterator[tuple[str, nn.LSTM]]:
    for name, child in module.named_modules():
        if isinstance(child, nn.LSTM):
            yield name, child.eval()


def _build(file: Path, factory: str) -> nn.Module:
    """Call the function named `factory` in the Python file."""
    if not file.is_file():
        raise ModelFileError(f"no such file: {file}")
    try:
        with _siblings_importable(file):
            model = getattr(_execute(file), factory)()
    except Exception as error:  # the user's code may raise anything
        raise ModelFileError(f"{file}:{factory} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelFileError(f"{file}:{factory} must return an nn.Module, got {type(model).__name__}")
    return model


def _execute(file: Path) -> object:
    """The Python file as a module, listed in `sys.modules` because dataclasses and pickle look there."""
    spec = importlib.util.spec_from_file_location(f"_modelfile_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _siblings_importable(file: Path) -> Iterator[None]:
    """Let `file` import its neighbours, as `python file.py` would."""
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of a weight file by name; names in nested dicts are joined by dots."""
    if not path.is_file():
        raise ModelFileError(f"no such file: {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return dict(_flat(torch.load(path, map_location="cpu", weights_only=True)))
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            f"{path} is damaged or holds more than weights, which is not loaded because it may execute code; "
            "save a state_dict, or give file.py:factory"
        ) from error
    except (OSError, EOFError, KeyError, RuntimeError, SafetensorError, ValueError) as error:
        raise ModelFileError(f"{path} is damaged or not a file of weights: {str(error).splitlines()[0]}") from error


def _flat(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))


def _of_weights(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, nn.LSTM]]:
    for key, first in weights.items():
        prefix = key.removesuffix(_FIRST)
        if key.endswith(_FIRST) and (not prefix or prefix.endswith(".")):
            state = {
                name.removeprefix(prefix): values.float()
                for name, values in weights.items()
                if name.startswith(prefix) and _PARAMETER.fullmatch(name.removeprefix(prefix))
            }
            if _is_lstm(first, state):
                yield prefix.rstrip("."), _rebuild(prefix, state)


def _is_lstm(first: Tensor, state: Mapping[str, Tensor]) -> bool:
    """Whether there are four gates: GRU and RNN use the same names, with three gates and one."""
    projection, recurrent = state.get("weight_hr_l0"), state.get("weight_hh_l0")
    if projection is not None:
        return True  # only LSTMs have a projection
    return recurrent is None or len(first) == 4 * recurrent.shape[1]


def _rebuild(prefix: str, state: dict[str, Tensor]) -> nn.LSTM:
    first, projection = state[_FIRST], state.get("weight_hr_l0")
    lstm = nn.LSTM(
        input_size=first.shape[1],
        hidden_size=first.shape[0] // 4,
        num_layers=sum(re.fullmatch(r"weight_ih_l\d+", name) is not None for name in state),
        bias="bias_ih_l0" in state,
        batch_first=True,
        bidirectional=f"{_FIRST}_reverse" in state,
        proj_size=0 if projection is None else projection.shape[0],
    )
    try:
        lstm.load_state_dict(state)
    except RuntimeError as error:
        details = " ".join(str(error).split("\n\t")[1:])
        raise ModelFileError(f"the weights {prefix}* do not form an LSTM: {details}") from error
    return lstm.eval()
