"""Weights as they are executed: the parameters of ``nn.LSTM`` in our layout and in their precision."""
