"""The native core against the reference, and both against ``nn.LSTM``."""
