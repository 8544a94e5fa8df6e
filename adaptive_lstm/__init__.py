"""Drop-in CPU runtime for pretrained stacked LSTMs: exact by default, faster when it may skip."""

from importlib.metadata import version as _version

from . import losses as losses
from .artifact import load as load
from .artifact import load_certificate as load_certificate
from .artifact import save as save
from .backend import BackendInfo as BackendInfo
from .backend import backend_info as backend_info
from .calibrate import Calibration as Calibration
from .calibrate import calibrate as calibrate
from .certificate import Certificate as Certificate
from .compress import compress as compress
from .compress import report as report
from .compress import restore as restore
from .compress_report import CompressReport as CompressReport
from .errors import AdaptiveLSTMError as AdaptiveLSTMError
from .measure import measure_sensitivities as measure_sensitivities
from .measure import measure_sensitivity as measure_sensitivity
from .mixed import mixed_precision as mixed_precision
from .monitor import DriftWarning as DriftWarning
from .policies import Combined as Combined
from .policies import Delta as Delta
from .policies import Dense as Dense
from .policies import ExitInDepth as ExitInDepth
from .policies import ExitInTime as ExitInTime
from .policies import HoldLayers as HoldLayers
from .policies import LinearHead as LinearHead
from .policies import Policy as Policy
from .policies import Site as Site
from .policies import SkipTimesteps as SkipTimesteps
from .pruning import Prune as Prune
from .quantize import Quantize as Quantize
from .runtime import AdaptiveLSTM as AdaptiveLSTM
from .runtime import adapt as adapt
from .sensitivity import Sensitivity as Sensitivity
from .sequences import Splits as Splits
from .stream import Stream as Stream
from .stream import stream as stream
from .translate import Translators as Translators
from .translate import fit_translators as fit_translators
from .types import RunStats as RunStats
from .types import StreamState as StreamState
from .within import compress_within as compress_within

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
