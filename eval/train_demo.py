"""Train the model of the embedded demo once: `python -m eval.train_demo`, some five minutes on one core.

Writes `digits.safetensors` (the model) and `digits_images.safetensors` (the held-out pictures) into
`adaptive_lstm/cli/demo/`. Everything is seeded and runs on one thread, so a second run on the same machine and versions
writes the same bytes. Of the 1797 pictures 1047 train; nothing was chosen by looking at the 450 test pictures: the
settings below were found on the other 300, which the demo later fits on without their labels.
"""

import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from tqdm import tqdm

from adaptive_lstm.cli.demo.digits import HIDDEN, IMAGES_FILE, LAYERS, MODEL_FILE, DigitReader, read_columns

SEED = 0
TEST, FIT = 450, 300  # pictures; the others train
EPOCHS, BATCH = 80, 64
LEARNING_RATE, WEIGHT_DECAY, CLIP, SMOOTHING = 6e-3, 1e-2, 1.0, 0.05
FORGET_BIAS = 2.0  # the class is read 64 steps after the first column: start with a long memory


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images).float(), torch.from_numpy(digits.target)
    test, fit, train = torch.randperm(len(images)).split([TEST, FIT, len(images) - TEST - FIT])

    started = time.perf_counter()
    model = _train(images[train], labels[train]).half().float()  # as it will be stored
    print(f"trained in {time.perf_counter() - started:.0f} s")
    for name, part in (("fit", fit), ("test", test)):
        print(f"accuracy on the {len(part)} {name} pictures: {_accuracy(model, images[part], labels[part]):.4f}")

    pictures = {"fit": images[fit], "test": images[test], "labels": labels[test]}
    save_file(model.half().state_dict(), MODEL_FILE)
    save_file({name: values.to(torch.uint8) for name, values in pictures.items()}, IMAGES_FILE)
    for path in (MODEL_FILE, IMAGES_FILE):
        print(f"wrote {path.relative_to(Path.cwd())}, {path.stat().st_size / 1000:.0f} kB")


def _train(images: Tensor, labels: Tensor) -> DigitReader:
    """A model trained on pictures [N, 8, 8] with classes [N]."""
    model = DigitReader()
    with torch.no_grad():
        for layer in range(LAYERS):
            bias: Tensor = getattr(model.lstm, f"bias_ih_l{layer}")
            bias[HIDDEN : 2 * HIDDEN] = FORGET_BIAS
    batches = len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * batches)
    for _ in tqdm(range(EPOCHS), desc="training", unit="epoch"):
        order = torch.randperm(len(images))[: batches * BATCH]
        for batch in order.split(BATCH):
            logits = model(read_columns(_moved(images[batch])))
            optimizer.zero_grad()
            cross_entropy(logits, labels[batch], label_smoothing=SMOOTHING).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
    return model.eval()


def _moved(images: Tensor) -> Tensor:
    """Pictures [N, 8, 8], each turned, scaled, slanted and shifted a little, as another hand might have written it."""
    n = len(images)
    angle, scale, slant, right, down = (torch.rand(5, n) * 2 - 1) * torch.tensor(
        [[0.25], [0.125], [0.2], [0.25], [0.25]]
    )
    cos, sin = angle.cos() * (1 + scale), angle.sin() * (1 + scale)
    affine = torch.stack([cos, slant - sin, right, sin, cos, down], 1).view(n, 2, 3)
    grid = affine_grid(affine, [n, 1, 8, 8], align_corners=True)
    return grid_sample(images[:, None], grid, align_corners=True)[:, 0]


@torch.no_grad()
def _accuracy(model: DigitReader, images: Tensor, labels: Tensor) -> float:
    return float((model(read_columns(images)).argmax(1) == labels).double().mean())


if __name__ == "__main__":
    main()
