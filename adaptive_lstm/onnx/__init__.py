"""Models that exist as ONNX files: their LSTMs as ``AdaptiveLSTM``, or the whole file behind ONNX Runtime's interface.

Needs the extra ``onnx``: ``pip install 'adaptive-lstm[onnx]'``.
"""

from .load import load_lstms as load_lstms
from .model import OnnxModel as OnnxModel
from .session import Session as Session
from .values import Value as Value
