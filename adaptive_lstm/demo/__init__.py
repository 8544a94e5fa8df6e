"""The demonstration behind `adaptive-lstm demo`: what dropping in, quantizing and skipping bring on a trained model.

`digits` (embedded, offline) and `resemblyzer` (a real speaker encoder, from a folder you name) each load a `task.Task`;
`run` measures it, `table` prints the outcome and `plot` draws it.
"""
