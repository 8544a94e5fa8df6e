"""ChemNet: SMILES -> two convolutions -> LSTM of 128 backwards in time -> LSTM of 512 forwards -> descriptor."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, selu

from adaptive_lstm.losses import cosine_distance

from .base import COSINE, Figure, Golden, ZooModel, arrays, family, filled, golden_of, spread
from .material import Material, parted

FOLDER = "fcd_chemnet_128_512"
TOKENS = ["C", "N", "O", "H", "F", "Cl", "P", "B", "Br", "S", "I", "Si", *"#()+-12345678=[]@cnosX."]
UNKNOWN, END = "X", "."
LENGTH = 350  # tokens, padded
GROUP = 600  # molecules in each of the compared sets
BATCH = 50


class ChemNet(nn.Module):
    """One-hot tokens / 35 [B, 35, 350] -> descriptors [B, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(len(TOKENS), 32, kernel_size=4, stride=2, bias=False)
        self.conv2 = nn.Conv1d(32, 32, kernel_size=4, stride=2, bias=False)
        self.lstm1 = nn.LSTM(32, 128, batch_first=True)
        self.lstm2 = nn.LSTM(128, 512, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        # The padding that "same" means for these lengths: 350 -> 175 -> 88.
        x = selu(self.conv1(pad(tokens, (1, 1))))
        x = selu(self.conv2(pad(x, (1, 2))))
        return self.recur(x.transpose(1, 2).flip(1))

    def recur(self, flipped: Tensor) -> Tensor:
        """[B, 88, 32], the last place of the molecule first -> descriptors [B, 512]."""
        x, _ = self.lstm1(flipped)
        y, _ = self.lstm2(x.flip(1))
        descriptors: Tensor = y[:, -1]
        return descriptors


def _encode(smiles: str) -> Tensor:
    """A molecule as [1, 35, 350]."""
    found = re.findall("Cl|Br|Si|.", smiles + END)
    ids = torch.tensor([TOKENS.index(token if token in TOKENS else UNKNOWN) for token in found])
    tokens = torch.zeros(1, len(TOKENS), LENGTH)
    tokens[0, ids, torch.arange(len(ids))] = 1 / len(TOKENS)
    return tokens


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Between the normal distributions with the moments of two sets [N, D].

    |difference of means|^2 + trace(A + B - 2 (A B)^(1/2)) (Dowson and Landau, J. Multivariate Analysis 12, 1982).
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # A B has the eigenvalues of the symmetric root_a B root_a.
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def load(zoo: Path) -> ZooModel:
    """One input is one molecule [1, 35, 350]; the figures are Frechet ChemNet distances between sets of 600."""
    folder = family(zoo, FOLDER)
    muv, tox21 = ((folder / f"{name}_a.smi").read_text(encoding="utf-8").split() for name in ("muv", "tox21"))

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        def describe(molecules: list[str]) -> Tensor:
            encoded = torch.cat([_encode(smiles) for smiles in molecules[::every]])
            return torch.cat([model(part) for part in encoded.split(BATCH)])

        base = describe(muv[:GROUP])
        others = {"muv": muv[GROUP : 2 * GROUP], "tox21": tox21[:GROUP]}
        return {f"FCD muv {name}": frechet_distance(base, describe(other)) for name, other in others.items()}

    def material() -> Material:
        return Material.of(
            parted([_encode(smiles) for smiles in muv], (100, 80, 500, 300), seed=0),
            promise="molecules drawn from one list of 3,000 (MUV), all different",
            loss=cosine_distance,
            max_loss=0.02,
        )

    return ZooModel(
        name="chemnet",
        model=filled(ChemNet(), arrays(folder / "weights.npz")),
        inputs=spread([_encode(smiles) for smiles in muv[:GROUP]], 40),
        distance=COSINE,
        golden=golden_of(
            folder / "golden.npz",
            lambda golden: (
                Golden("descriptor", lambda m, x: cast(ChemNet, m).recur(x), golden["x"], golden["h2_last"]),
                Golden(
                    "whole model",
                    lambda m, x: m(x),
                    torch.cat([_encode(smiles) for smiles in muv[:2]]),
                    golden["h2_last"],
                ),
            ),
        ),
        measure=measure,
        material=material,
        known={"FCD muv muv": Figure(5.945, 5e-4), "FCD muv tox21": Figure(25.655, 5e-4)},
    )
