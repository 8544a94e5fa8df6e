"""Load the model that an argument of the command line names.

Either `path/to/file.py:factory`, a Python file and a function in it that returns an `nn.Module` when called without
arguments; or a file of weights, see `weight_file` and `lstm_weights`.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import AdaptiveLSTMError, ModelFileError
from ..model_io import call
from ..runtime.adapt import adaptable
from .lstm_weights import lstms_among
from .weight_file import SUFFIXES, read_weights


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
        lstms = dict(lstms_among(read_weights(spec)))
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
    _require_lstm(adaptable(model), spec)
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
        raise ModelFileError(f"no nn.LSTM in {spec}; for cells (nn.LSTMCell) there is compress, GRUs are not supported")
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
    except (Exception, SystemExit) as error:  # the user's code may raise anything, and a script may end itself
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
