"""What `adaptive-lstm --help` says, command by command."""

from textwrap import fill

from ..peers import PEERS

DESCRIPTION = "Run pretrained stacked LSTMs faster on a CPU, without retraining."
SUMMARIES = {
    "demo": "see on a trained model what it brings and what it costs",
    "inspect": "list the LSTMs of your own model and what can be done with them",
    "bench": "measure your own model, or any size, on this machine",
    "compress": "prune and quantize your own model once, and write the result to a file",
    "report": "say what is in such a file",
    "calibrate": "find the cheapest skip policy for your own model whose loss is certified",
}

DEMO = """\
Compare torch with the drop-in on a trained model and data it never saw: exact, int8, and int8 with a certified policy
that skips. Prints quality, share of the work that was done, time per sequence and per streaming step, and the
certificate; draws the frontier of the calibration, time against quality, and what was computed when. One thread; takes
about a minute.

  digits        handwritten digits read through a moving slit; ships with the package, works offline
  resemblyzer   a real speaker encoder on real speech; needs its folder (see --zoo), takes some minutes"""

DEMO_EXAMPLES = """\
examples:
  adaptive-lstm demo
  adaptive-lstm demo --out digits.pdf
  adaptive-lstm demo --json > digits.json
  adaptive-lstm demo --model resemblyzer --zoo path/to/zoo"""

MODEL_HELP = """\
MODEL is one of
  path/to/file.py:factory   a Python file and a callable in it that returns an nn.Module (the file is executed)
  path/to/weights           a state_dict as .safetensors, .pt, .pth or .bin (no code from it is executed); LSTMs are
                            recognised by the names that nn.LSTM gives its parameters"""

INSPECT = f"""\
List every nn.LSTM of a model: shape, parameters, bytes per precision, multiply-accumulates per step, and which uses the
native core serves on this machine.

{MODEL_HELP}"""

INSPECT_EXAMPLES = """\
examples:
  adaptive-lstm inspect encoder.safetensors
  adaptive-lstm inspect my_project/model.py:build --json"""

BENCH = f"""\
Time torch against the drop-in, in fp32 and in int8, nothing skipped, and against other runtimes that are installed: a
whole sequence in one call, and one step of a stream. Batch 1. Everybody's output is first compared with torch's: who
computes something else is left out and named with the reason, who is imprecise is shown with the worst error. All
contenders run interleaved in one process; ratios are medians of paired rounds.

{MODEL_HELP}
Without MODEL: random weights in the size that the options say.

DATA is an .npz, as for `adaptive-lstm calibrate` (y is not needed): the model runs on it, and its LSTMs are timed on
what reaches them. With a file of weights, x holds the inputs of the LSTM itself. Without DATA: random inputs.

Peers:
{fill(", ".join(PEERS), 116, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)}
  pip install 'adaptive-lstm[peers]' brings the packages. OpenVINO int8 is calibrated on sequences that nobody is timed
  on, where there are enough; torch compile compiles a step, longer sequences stay in eager."""

BENCH_EXAMPLES = """\
examples:
  adaptive-lstm bench
  adaptive-lstm bench --input-size 80 --hidden-size 512 --layers 2
  adaptive-lstm bench --model my.py:build --data my.npz --peers all
  adaptive-lstm bench encoder.safetensors --peers "ORT,ORT int8" --step --json"""

COMPRESS = """\
Prune and quantize the LSTMs of a model, without a gradient step: scores from the sensitivity of the model's output,
kept weights refitted, settings chosen on sequences that nothing was fitted on. Prints every matrix, time and bytes
before and after, and how much the output changes on every fourth of the sequences (those not marked "fit"); writes
a file that adaptive_lstm.load(FILE, model) reads. The parameters themselves are not in it.

MODEL is path/to/file.py:factory, and DATA an .npz, as for `adaptive-lstm calibrate`; y is not needed.

Without MODEL: the digits of the demo. Zeros that lie anywhere save bytes; units, columns and blocks save time too."""

COMPRESS_EXAMPLES = """\
examples:
  adaptive-lstm compress
  adaptive-lstm compress --pattern unit --sparsity 0.25
  adaptive-lstm compress my.py:build --data my.npz --pattern block --sparsity 0.3 --out small.alstm"""

REPORT = """\
Say what a file that `adaptive-lstm compress` or adaptive_lstm.save has written makes of its model: precision, zeros
and bytes of every matrix, time of a step before and after, policies, and the certificate.

MODEL is path/to/file.py:factory, the model that the file was made from; without it, the digits of the demo."""

REPORT_EXAMPLES = """\
examples:
  adaptive-lstm report model.alstm
  adaptive-lstm report small.alstm my.py:build --json"""

CALIBRATE = """\
Find the cheapest skip policy of a model whose loss on new sequences is certified, or say that none is; losses compare
with the original float32 model. Prints the best candidates and the certificate, and writes into a folder

  certificate.json   what is promised, for which model, tested on which data
  frontier.json      every candidate: its cost and its losses
  frontier.png       the same as a figure

MODEL is path/to/file.py:factory, a Python file and a callable in it that returns an nn.Module (the file is executed).
It is called with one sequence at a time, batch first: x [1, T, I] float32, or tokens [1, T] int64. DATA is an .npz with

  x        [N, T, I] sequences of one length, or [sum of lengths, I] end to end; whole numbers (tokens) have no I
  length   [N] the lengths, if the sequences lie end to end
  y        [N] or [N, ...] targets, which accuracy_drop needs; optional
  split    [N] "fit", "search" or "test"; optional. Without it the sequences are split at random, a half for the test;
           give it where sequences belong together (of one speaker, of one device) and must not be torn apart

Without MODEL: the digits of the demo. Also exits with 0 when nothing is certified, which is an ordinary answer."""

CALIBRATE_EXAMPLES = """\
examples:
  adaptive-lstm calibrate
  adaptive-lstm calibrate my.py:build --data my.npz --loss disagreement --max-loss 0.02 --confidence 0.95 --head fc
  adaptive-lstm calibrate vad.py:build --data vad.npz --loss clipped_error:0.5 --max-loss 0.01 --confidence 0.95
  adaptive-lstm calibrate my.py:build --data my.npz --confidence 0.95 \\
      --loss disagreement --max-loss 0.02 --loss accuracy_drop --max-loss 0.01"""
