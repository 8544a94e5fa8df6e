"""Train the model of the embedded demo once: `python -m eval.train_demo`, some fifteen minutes on one core.

Writes `digits.safetensors` (the model) and `digits_images.safetensors` (the held-out pictures) into
`adaptive_lstm/cli/demo/`. Everything is seeded and runs on one thread, so a second run on the same machine and versions
writes the same bytes. Of the 1797 pictures 1047 train. All settings, those of the demo too, were chosen on an earlier
split whose test pictures train here; the 450 test pictures of now trained there, and nothing was chosen by them.

The model learns to know the class from the middle of the digit on and to keep it over blank paper, and to expect every
class alike before the digit comes. Strips are short at first, and as long as in the demo in the end.
"""

import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from tqdm import tqdm

from adaptive_lstm.cli.demo.digits import (
    CLASSES,
    HIDDEN,
    IMAGES_FILE,
    LAYERS,
    MODEL_FILE,
    STEPS,
    WIDTH,
    DigitReader,
    read_strips,
    strips,
)

SEED = 0
TEST, FIT = 450, 300  # pictures; the others train
LENGTHS = ((30, 96), (20, 160), (12, STEPS))  # epochs, and columns of their strips
BATCH = 64
LEARNING_RATE, WEIGHT_DECAY, CLIP, SMOOTHING = 6e-3, 1e-2, 1.0, 0.05
FORGET_BIAS = 2.0  # the class is read long after the digit: start with a long memory
LOOK = WIDTH // 2  # columns of a digit after which its class should be known
NOISE = 0.02  # of the sensor, twice what the demo has


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images).float(), torch.from_numpy(digits.target)
    train, fit, test = torch.randperm(len(images)).split([len(images) - TEST - FIT, FIT, TEST])

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
    lengths = [steps for epochs, steps in LENGTHS for _ in range(epochs)]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=len(lengths) * batches)
    bar = tqdm(lengths, desc="training", unit="epoch")
    for steps in bar:
        order = torch.randperm(len(images))[: batches * BATCH]
        for batch in order.split(BATCH):
            loss = _loss(model, _moved(images[batch]), labels[batch], steps)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return model.eval()


def _loss(model: DigitReader, images: Tensor, labels: Tensor, steps: int) -> Tensor:
    """Mean over the columns at which an answer is asked for, of pictures [N, 8, 8] on strips of so many columns."""
    starts = torch.randint(steps - WIDTH + 1, (len(images),))
    outputs, _ = model.lstm(strips(images, starts, steps, NOISE, torch.default_generator))
    passed = torch.arange(steps) - starts[:, None]
    seen, before = passed >= LOOK, passed < 0
    logits = model.fc(outputs)
    known = cross_entropy(logits[seen], labels[:, None].expand(-1, steps)[seen], label_smoothing=SMOOTHING)
    unknown = cross_entropy(logits[before], torch.full((int(before.sum()), CLASSES), 1 / CLASSES), reduction="sum")
    return known + unknown / before.numel()


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
    return float((model(read_strips(images, SEED)).argmax(1) == labels).double().mean())


if __name__ == "__main__":
    main()
