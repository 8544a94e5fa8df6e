"""Which executor serves, and the native one behind Python objects.

``ADAPTIVE_LSTM_BACKEND=native|reference`` forces the choice, and the native kernels' instruction set is forced by
``ADAPTIVE_LSTM_ISA=generic|avx2|avx512vnni|avx512vbmi2|amx`` on x86-64, ``generic|neon|neondot|i8mm`` on 64-bit ARM.
Without the compiled extension the reference executor serves, and says so once.
"""

from __future__ import annotations

import functools
import os
import warnings

from ..errors import BackendError, NonFiniteError
from ..types import BackendInfo


@functools.cache
def native() -> bool:
    """Whether the native kernels serve; if they should but do not load, with one warning. Holds for the process."""
    wanted = os.environ.get("ADAPTIVE_LSTM_BACKEND", "")
    if wanted not in ("", "native", "reference"):
        raise BackendError(f"ADAPTIVE_LSTM_BACKEND: got {wanted!r}, expected 'native' or 'reference'")
    if wanted == "reference":
        return False
    try:
        from .. import _native
    except ImportError as error:
        if wanted == "native":
            raise BackendError(f"ADAPTIVE_LSTM_BACKEND=native, but the extension does not load: {error}") from error
        warnings.warn(
            f"adaptive_lstm: the native extension does not load ({error}); the reference executor serves: exact, "
            "but slow. Reinstall the package where a C++17 compiler is available.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    try:
        _native.isa()
    except RuntimeError as error:
        raise BackendError(str(error)) from error
    return True


def backend_info() -> BackendInfo:
    """What executes on this machine.

    Raises:
        BackendError: an environment variable demands what is not available.
    """
    if not native():
        return BackendInfo("reference", isa(), (), _torch_threads(), "")
    from .. import _native

    return BackendInfo("native", isa(), tuple(_native.usable_isas()), _torch_threads(), _native.compiler)


def isa() -> str:
    """Instruction set of the native kernels; "torch" where the reference executor serves. Raises ``BackendError``."""
    if not native():
        return "torch"
    from .. import _native

    name: str = _native.isa()
    return name


def _torch_threads() -> int:
    """How many threads torch uses; 1 where it is not installed."""
    try:
        import torch
    except ImportError:
        return 1
    return torch.get_num_threads()


def refuse_non_finite() -> NonFiniteError:
    """The error for NaN or infinity in an input that would poison a persistent state."""
    return NonFiniteError(
        "the input or the given state holds NaN or infinity (or a float64 beyond float32). A stream or a "
        "skip policy would carry it along, and integers cannot pass it on. Nothing was run. Clean it, for example with "
        "torch.nan_to_num."
    )
