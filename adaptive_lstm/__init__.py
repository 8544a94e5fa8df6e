"""Drop-in CPU runtime for pretrained stacked LSTMs: exact by default, faster when it may skip."""

from importlib.metadata import version as _version

from .backend import BackendInfo as BackendInfo
from .backend import backend_info as backend_info
from .compress import CompressReport as CompressReport
from .compress import compress as compress
from .errors import AdaptiveLSTMError as AdaptiveLSTMError
from .measure import measure_sensitivities as measure_sensitivities
from .measure import measure_sensitivity as measure_sensitivity
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
from .quantize import Quantize as Quantize
from .runtime import AdaptiveLSTM as AdaptiveLSTM
from .runtime import adapt as adapt
from .sensitivity import Sensitivity as Sensitivity
from .stream import Stream as Stream
from .stream import stream as stream
from .types import RunStats as RunStats
from .types import StreamState as StreamState

__version__ = _version("adaptive-lstm")

__all__ = [
    "AdaptiveLSTM",
    "AdaptiveLSTMError",
    "BackendInfo",
    "Combined",
    "CompressReport",
    "Delta",
    "Dense",
    "ExitInDepth",
    "ExitInTime",
    "HoldLayers",
    "LinearHead",
    "Policy",
    "Quantize",
    "RunStats",
    "Sensitivity",
    "Site",
    "SkipTimesteps",
    "Stream",
    "StreamState",
    "adapt",
    "backend_info",
    "compress",
    "measure_sensitivities",
    "measure_sensitivity",
    "stream",
]
