"""The demo behind `adaptive-lstm demo`: torch, the drop-in, int8, and a certified policy on one small trained model.

`digits` loads the model and its data as a `task.DemoTask`, `run` measures it and gives an `outcome.DemoOutcome`, which
`plot` draws.
"""
