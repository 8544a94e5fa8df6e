"""Other runtimes with the same LSTM: to check, to time, and to run inside a model.

Their packages are optional (``pip install 'adaptive-lstm[peers]'``). ``build`` reports a peer whose package is
missing as unavailable, with the reason.
"""

from .adaptive import Adaptive, build_adaptive
from .catalog import PEERS, build
from .contender import Contender, Unavailable
from .drop_in import drop_in_peer, with_peer
from .lstm_inputs import inputs_of_lstms
from .verify import Verification, verify_contenders

__all__ = [
    "PEERS",
    "Adaptive",
    "Contender",
    "Unavailable",
    "Verification",
    "build",
    "build_adaptive",
    "drop_in_peer",
    "inputs_of_lstms",
    "verify_contenders",
    "with_peer",
]
