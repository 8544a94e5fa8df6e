"""Drop-in CPU runtime for pretrained stacked LSTMs: exact by default, faster when it may skip."""

from importlib.metadata import version as _version

from . import losses as losses
from .analysis.fit_translators import Translators as Translators
from .analysis.fit_translators import fit_translators as fit_translators
from .analysis.measure_sensitivity import measure_sensitivities as measure_sensitivities
from .analysis.measure_sensitivity import measure_sensitivity as measure_sensitivity
from .analysis.sensitivity import Sensitivity as Sensitivity
from .artifact.artifact import load as load
from .artifact.artifact import load_certificate as load_certificate
from .artifact.artifact import save as save
from .calibration.calibrate import Calibration as Calibration
from .calibration.calibrate import calibrate as calibrate
from .calibration.certificate import Certificate as Certificate
from .calibration.splits import Splits as Splits
from .compression.compress import compress as compress
from .compression.compress import report as report
from .compression.compress import restore as restore
from .compression.mixed_precision import mixed_precision as mixed_precision
from .compression.pruning import Prune as Prune
from .compression.report import CompressReport as CompressReport
from .compression.within_budget import compress_within as compress_within
from .errors import AdaptiveLSTMError as AdaptiveLSTMError
from .execution.backend import backend_info as backend_info
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
from .runtime.adapt import adapt as adapt
from .runtime.lstm import AdaptiveLSTM as AdaptiveLSTM
from .runtime.monitor import DriftWarning as DriftWarning
from .runtime.stream import Stream as Stream
from .runtime.stream import stream as stream
from .types import BackendInfo as BackendInfo
from .types import RunStats as RunStats
from .types import Site as Site
from .types import StreamState as StreamState
from .weights.precision import Quantize as Quantize

__version__ = _version("adaptive-lstm")

__all__ = [
    "AdaptiveLSTM",
    "AdaptiveLSTMError",
    "BackendInfo",
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
    "RunStats",
    "Sensitivity",
    "Site",
    "SkipTimesteps",
    "Splits",
    "Stream",
    "StreamState",
    "Translators",
    "adapt",
    "backend_info",
    "calibrate",
    "compress",
    "compress_within",
    "fit_translators",
    "load",
    "load_certificate",
    "losses",
    "measure_sensitivities",
    "measure_sensitivity",
    "mixed_precision",
    "report",
    "restore",
    "save",
    "stream",
]
