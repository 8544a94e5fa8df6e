"""Drop-in CPU runtime for pretrained stacked LSTMs: exact by default, faster when it may skip."""


from .backend import BackendInfo as BackendInfo
from .backend import backend_info as backend_info
from .policies import Delta as Delta
from .policies import Dense as Dense
from .policies import Policy as Policy
from .quantize import Quantize as Quantize
from .runtime import AdaptiveLSTM as AdaptiveLSTM
from .runtime import adapt as adapt
from .types import RunStats as RunStats
from .types import StreamState as StreamState

__version__ = "0"
