"""Drop-in CPU runtime for pretrained stacked LSTMs: exact by default, faster when it may skip.

Names are imported when they are first used, so that rooms which need no torch can be imported without it.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from .execution.when_imported import when_imported as _when_imported

if TYPE_CHECKING:
    from . import bench as bench
    from . import errors as errors
    from . import losses as losses
    from . import onnx as onnx
    from . import policies as policies
    from . import types as types
    from .analysis.fit_translators import Translators as Translators
    from .analysis.fit_translators import fit_translators as fit_translators
    from .analysis.measure_sensitivity import measure_sensitivities as measure_sensitivities
    from .analysis.measure_sensitivity import measure_sensitivity as measure_sensitivity
    from .analysis.sensitivity import Sensitivity as Sensitivity
    from .artifact.artifact import load as load
    from .artifact.artifact import load_certificate as load_certificate
    from .artifact.artifact import save as save
    from .calibration.audit import Audit as Audit
    from .calibration.audit import AuditWarning as AuditWarning
    from .calibration.audit import audit as audit
    from .calibration.calibrate import Calibration as Calibration
    from .calibration.calibrate import calibrate as calibrate
    from .calibration.certificate import Certificate as Certificate
    from .calibration.splits import Splits as Splits
    from .calibration.time_share import TimeShare as TimeShare
    from .calibration.time_share import time_policy as time_policy
    from .compression.compress import compress as compress
    from .compression.compress import report as report
    from .compression.compress import restore as restore
    from .compression.mixed_precision import mixed_precision as mixed_precision
    from .compression.pruning import Prune as Prune
    from .compression.report import CompressReport as CompressReport
    from .compression.within_budget import compress_within as compress_within
    from .errors import AdaptiveLSTMError as AdaptiveLSTMError
    from .execution.backend import backend_info as backend_info
    from .execution.threads import get_num_threads as get_num_threads
    from .execution.threads import set_num_threads as set_num_threads
    from .export.export_c import CExport as CExport
    from .export.export_c import export_c as export_c
    from .policies import Combined as Combined
    from .policies import Delta as Delta
    from .policies import Dense as Dense
    from .policies import ExitInDepth as ExitInDepth
    from .policies import ExitInTime as ExitInTime
    from .policies import Family as Family
    from .policies import HoldLayers as HoldLayers
    from .policies import LinearHead as LinearHead
    from .policies import Policy as Policy
    from .policies import SkipTimesteps as SkipTimesteps
    from .policies import SplitTime as SplitTime
    from .runtime.adapt import adapt as adapt
    from .runtime.async_pool import AsyncStreamPool as AsyncStreamPool
    from .runtime.cell import AdaptiveLSTMCell as AdaptiveLSTMCell
    from .runtime.from_gates import from_gates as from_gates
    from .runtime.lstm import AdaptiveLSTM as AdaptiveLSTM
    from .runtime.map_sequences import map_sequences as map_sequences
    from .runtime.monitor import DriftWarning as DriftWarning
    from .runtime.stream import Stream as Stream
    from .runtime.stream import stream as stream
    from .runtime.stream_pool import StreamPool as StreamPool
    from .runtime.warm_up import warm_up as warm_up
    from .types import BackendInfo as BackendInfo
    from .types import Route as Route
    from .types import RunStats as RunStats
    from .types import Site as Site
    from .types import StreamState as StreamState
    from .weights.precision import Quantize as Quantize

    __version__: str

_MODULES = ("bench", "errors", "losses", "onnx", "policies", "types")

_EXPORTS = {
    "AdaptiveLSTM": "runtime.lstm",
    "AdaptiveLSTMCell": "runtime.cell",
    "AdaptiveLSTMError": "errors",
    "AsyncStreamPool": "runtime.async_pool",
    "Audit": "calibration.audit",
    "AuditWarning": "calibration.audit",
    "BackendInfo": "types",
    "CExport": "export.export_c",
    "Calibration": "calibration.calibrate",
    "Certificate": "calibration.certificate",
    "Combined": "policies",
    "CompressReport": "compression.report",
    "Delta": "policies",
    "Dense": "policies",
    "DriftWarning": "runtime.monitor",
    "ExitInDepth": "policies",
    "ExitInTime": "policies",
    "Family": "policies",
    "HoldLayers": "policies",
    "LinearHead": "policies",
    "Policy": "policies",
    "Prune": "compression.pruning",
    "Quantize": "weights.precision",
    "Route": "types",
    "RunStats": "types",
    "Sensitivity": "analysis.sensitivity",
    "Site": "types",
    "SkipTimesteps": "policies",
    "SplitTime": "policies",
    "Splits": "calibration.splits",
    "Stream": "runtime.stream",
    "StreamPool": "runtime.stream_pool",
    "StreamState": "types",
    "TimeShare": "calibration.time_share",
    "Translators": "analysis.fit_translators",
    "adapt": "runtime.adapt",
    "audit": "calibration.audit",
    "backend_info": "execution.backend",
    "calibrate": "calibration.calibrate",
    "compress": "compression.compress",
    "compress_within": "compression.within_budget",
    "export_c": "export.export_c",
    "fit_translators": "analysis.fit_translators",
    "from_gates": "runtime.from_gates",
    "get_num_threads": "execution.threads",
    "load": "artifact.artifact",
    "load_certificate": "artifact.artifact",
    "map_sequences": "runtime.map_sequences",
    "measure_sensitivities": "analysis.measure_sensitivity",
    "measure_sensitivity": "analysis.measure_sensitivity",
    "mixed_precision": "compression.mixed_precision",
    "report": "compression.compress",
    "restore": "compression.compress",
    "save": "artifact.artifact",
    "set_num_threads": "execution.threads",
    "stream": "runtime.stream",
    "time_policy": "calibration.time_share",
    "warm_up": "runtime.warm_up",
}
"""Public name -> the module that defines it."""

__all__ = [
    "AdaptiveLSTM",
    "AdaptiveLSTMCell",
    "AdaptiveLSTMError",
    "AsyncStreamPool",
    "Audit",
    "AuditWarning",
    "BackendInfo",
    "CExport",
    "Calibration",
    "Certificate",
    "Combined",
    "CompressReport",
    "Delta",
    "Dense",
    "DriftWarning",
    "ExitInDepth",
    "ExitInTime",
    "Family",
    "HoldLayers",
    "LinearHead",
    "Policy",
    "Prune",
    "Quantize",
    "Route",
    "RunStats",
    "Sensitivity",
    "Site",
    "SkipTimesteps",
    "SplitTime",
    "Splits",
    "Stream",
    "StreamPool",
    "StreamState",
    "TimeShare",
    "Translators",
    "adapt",
    "audit",
    "backend_info",
    "calibrate",
    "compress",
    "compress_within",
    "export_c",
    "fit_translators",
    "from_gates",
    "get_num_threads",
    "load",
    "load_certificate",
    "losses",
    "map_sequences",
    "measure_sensitivities",
    "measure_sensitivity",
    "mixed_precision",
    "report",
    "restore",
    "save",
    "set_num_threads",
    "stream",
    "time_policy",
    "warm_up",
]


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        value = getattr(_import_module(f".{_EXPORTS[name]}", __name__), name)
    elif name in _MODULES:
        value = _import_module(f".{name}", __name__)
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # a fifth of what importing deploy takes

    try:
        return version("adaptive-lstm")
    except PackageNotFoundError:  # the same package under the name of the wheel without torch
        return version("adaptive-lstm-runtime")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


# So that programs with an LSTM in them can be loaded by a process that has done no more than import this.
_when_imported("torch", lambda: _import_module(f"{__name__}.export.torch_operator"))
