"""Skip policies: frozen settings that say what a run may skip, one file each.

Imported as ``adaptive_lstm.policies``; the folder is at the top of the repository, with a link in the package.
"""

if __name__ != "adaptive_lstm.policies":
    raise ImportError("import 'adaptive_lstm.policies', not 'policies': the second name would load a second copy")

from ..types import Site as Site
from ..types import sites as sites
from .change import Change as Change
from .combined import Combined as Combined
from .combined import Parts as Parts
from .combined import members as members
from .combined import parts as parts
from .delta import Delta as Delta
from .dense import Dense as Dense
from .exit_depth import ExitInDepth as ExitInDepth
from .exit_time import ExitInTime as ExitInTime
from .family import Family as Family
from .head import LinearHead as LinearHead
from .hold_layers import HoldLayers as HoldLayers
from .kind import PolicyKind as PolicyKind
from .kind import kind_of as kind_of
from .protocol import ColumnPolicy as ColumnPolicy
from .protocol import ColumnScale as ColumnScale
from .protocol import DepthExitPolicy as DepthExitPolicy
from .protocol import HoldAction as HoldAction
from .protocol import HoldPolicy as HoldPolicy
from .protocol import Policy as Policy
from .protocol import SplitPolicy as SplitPolicy
from .protocol import TimeExitPolicy as TimeExitPolicy
from .seam import Seam as Seam
from .skip_timesteps import SkipTimesteps as SkipTimesteps
from .split_time import SplitTime as SplitTime
from .split_time import StartStates as StartStates
from .sweep import FitData as FitData
from .sweep import Sweep as Sweep
from .translators import DepthTranslators as DepthTranslators
from .translators import Map as Map
from .translators import TimeTranslators as TimeTranslators
from .translators import bucket as bucket

__all__ = [
    "Change",
    "ColumnPolicy",
    "ColumnScale",
    "Combined",
    "Delta",
    "Dense",
    "DepthExitPolicy",
    "DepthTranslators",
    "ExitInDepth",
    "ExitInTime",
    "Family",
    "FitData",
    "HoldAction",
    "HoldLayers",
    "HoldPolicy",
    "LinearHead",
    "Map",
    "Parts",
    "Policy",
    "PolicyKind",
    "Seam",
    "Site",
    "SkipTimesteps",
    "SplitPolicy",
    "SplitTime",
    "StartStates",
    "Sweep",
    "TimeExitPolicy",
    "TimeTranslators",
    "bucket",
    "kind_of",
    "members",
    "parts",
    "sites",
]
