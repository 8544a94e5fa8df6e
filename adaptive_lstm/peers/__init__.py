"""What users have today: other runtimes with the same LSTM, to race, to check, and to run inside a model.

Their packages are optional: whatever is missing makes a peer absent, with the reason, when it is asked for.
"""

from .adaptive import Adaptive, adaptive
from .checked import Checked, check
from .lineup import PEERS, build
from .plugged import plug, replaced
from .protocol import Absent, Contender
from .reaching import reaching

__all__ = [
    "PEERS",
    "Absent",
    "Adaptive",
    "Checked",
    "Contender",
    "adaptive",
    "build",
    "check",
    "plug",
    "reaching",
    "replaced",
]
