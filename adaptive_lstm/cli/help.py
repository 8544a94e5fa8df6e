"""The words of `adaptive-lstm --help`, and what several commands say about their arguments."""

DESCRIPTION = """\
Run pretrained stacked LSTMs faster on a CPU, without retraining.

Start with `adaptive-lstm demo`, then `inspect` and `bench` your own model. `compress` stores its weights in fewer bits;
`calibrate` finds work that can be skipped and certifies how much that changes the output."""

SUMMARIES = {
    "demo": "compare with torch on a small trained model: quality and speed",
    "inspect": "list the LSTMs of a model: sizes, cost, and what runs natively",
    "bench": "time a model's LSTMs here, against torch and other runtimes",
    "compress": "quantize and prune a model's LSTMs, and save the result",
    "report": "show what a saved file contains",
    "export-c": "write a saved LSTM as C99 for a microcontroller",
    "calibrate": "find a policy that skips work, with a certified limit on its loss",
}

EPILOGUE = "`adaptive-lstm COMMAND --help` explains a command and gives examples."

MODEL = """\
MODEL is path/to/file.py:factory, a Python file (it is executed) and a function in it that returns an nn.Module."""

MODEL_OR_WEIGHTS = f"""\
{MODEL}
Or a file of weights: a state_dict as .safetensors, .pt, .pth or .bin (no code in it is executed), in which LSTMs are
recognised by the names that nn.LSTM gives its parameters."""

DATA = """\
DATA is an .npz file of sequences. The model is called with one at a time, batch first: x [1, T, I] float32, or tokens
[1, T] int64. The file holds (N sequences, T timesteps, I features)

  x        [N, T, I] if all have one length, or [sum of lengths, I] end to end; integers (tokens) have no I
  length   [N] the lengths, if the sequences lie end to end
  y        [N] or [N, ...] targets; optional
  split    [N] "fit", "search" or "test" for each sequence; optional"""

DEMO_MODEL = "Without MODEL: the demo's handwritten digits and the model that reads them."
