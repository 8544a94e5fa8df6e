"""Lets ``torch.compile`` look into adaptive LSTMs and cells, which show it one operation; it stops at ``nn.LSTM``."""

from __future__ import annotations

from typing import Any


def join() -> None:
    """Change how the compiler takes modules, of which those of other classes notice nothing."""
    from torch._dynamo import config
    from torch._dynamo.variables.builder import VariableBuilder

    plainly = VariableBuilder.wrap_module

    def wrap_module(self: VariableBuilder, value: Any) -> Any:
        from ..runtime.cell import AdaptiveLSTMCell
        from ..runtime.in_graph import handle_of
        from ..runtime.lstm import AdaptiveLSTM

        if not isinstance(value, AdaptiveLSTM | AdaptiveLSTMCell):
            return plainly(self, value)
        if isinstance(value, AdaptiveLSTMCell):
            value.__dict__["_lstm"] = value.as_lstm
            handle_of(value.as_lstm)  # what is traced can only read both
        else:
            handle_of(value)
        with config.patch(allow_rnn=True):
            return plainly(self, value)

    VariableBuilder.wrap_module = wrap_module  # type: ignore[method-assign]
