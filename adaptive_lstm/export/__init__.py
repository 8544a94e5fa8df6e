"""A model as C99 source for a microcontroller: its weights as constants, and one engine that runs them.

And an LSTM as one operation in the graphs that torch makes of models: compiled, exported, traced (``torch_operator``).
"""
