"""What users have today: other runtimes with the same LSTM, to race, to check, and to run inside a model.

Their packages are optional: whatever is missing makes a peer absent, with the reason, when it is asked for.
"""

from .adaptive import Adaptive, adaptive
from .catalog import PEERS, build
from .contender import Absent, Contender
from .drop_in import plug, replaced
from .lstm_inputs import reaching
from .verify import Checked, check

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
