"""Scores of single weights: what the output is expected to lose, in squares, if a weight is set to zero.

Zero order: w^2. First order: (w g)^2 with g^2 the mean squared gradient of random projections of the output
(``gradients.py``; Molchanov et al., CVPR 2019, with projections in place of a loss), and Wanda's (|w| rms(z_j))^2
(arXiv 2306.11695). Second order: F_r^gamma w^2 E[z_j^2] with the output sensitivity F_r of the row (``sensitivity.py``
says why it is damped). Scores of a structure are sums over its weights.
"""

from __future__ import annotations

import numpy as np

from .moments import Doubles


def damped(rows: Doubles, gamma: float) -> Doubles:
    """F_r^gamma [R]; gamma = 0 ignores the output."""
    return np.asarray(rows**gamma) if gamma else np.ones(len(rows))


def magnitude(w: Doubles) -> Doubles:
    """Scores of w [R, C], zero order."""
    return np.asarray(w**2)


def activation(w: Doubles, power: Doubles) -> Doubles:
    """Scores of w [R, C] with E[z_j^2] [C], blind to the output."""
    return np.asarray(w**2 * power)


def taylor(w: Doubles, squares: Doubles) -> Doubles:
    """Scores of w [R, C] with mean squared gradients [R, C]."""
    return np.asarray(w**2 * squares)


def second_order(w: Doubles, power: Doubles, rows: Doubles, gamma: float) -> Doubles:
    """Scores of w [R, C] with E[z_j^2] [C] and F_r [R]."""
    return np.asarray(damped(rows, gamma)[:, None] * w**2 * power)
