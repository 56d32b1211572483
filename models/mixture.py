"""Mixtures of distributions that are given by their quantiles.

In: quantiles at `LEVELS` of several distributions, weights. Out: quantiles of mixtures at the same levels.
Must not know: what is distributed. Rule: each row of weights has its own answer, whatever rows stand beside it.

A distribution stands as *atoms*: its quantiles, with the masses that lie around their levels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.forecast import F32, LEVELS

F64 = npt.NDArray[np.float64]
Step = tuple[F32, npt.NDArray[np.int64], F64]
Steps = list[Step]

TILE_CELLS = 1 << 21
"""Numbers worked on together: 16 MB."""

NEARLY = 1e-12
"""Sums of masses that come so near to a level reach it: a tenth added up ten times is no whole."""

_LEVELS = np.array(LEVELS)
MASSES: F64 = np.diff(np.concatenate([[0.0], (_LEVELS[1:] + _LEVELS[:-1]) / 2, [1.0]]))
"""Mass of the atom at each level: half way to its neighbours, and all beyond the outer ones."""


def mixture(atoms: F32, weight: F64, steps: Steps | None = None) -> F32:
    """Quantiles of mixtures of distributions.

    Parameters
    ----------
    atoms
        Quantiles of each donor and phase at `LEVELS`, (N, S, Q), none below 0.
    weight
        Of each donor in each mixture, (R, N), none below zero, some above.
    steps
        `steps_of` the atoms, where they are at hand.

    Returns
    -------
    Float32, (R, S, Q). A mixture of one has exactly its quantiles.

    Examples
    --------
    Half of the items sell 0, half 10; the mean of their quantiles would be 5 everywhere:

    >>> atoms = np.repeat(np.array([0.0, 10.0], np.float32), 13).reshape(2, 1, 13)
    >>> mixture(atoms, np.array([[1.0, 1.0], [0.0, 1.0]]))[:, 0, [2, 10]].tolist()
    [[0.0, 10.0], [10.0, 10.0]]
    """
    season, levels = atoms.shape[1:]
    out = np.empty((len(weight), season, levels), np.float32)
    for phase, (values, donor, mass) in enumerate(steps or steps_of(atoms)):
        rows = max(1, TILE_CELLS // len(values))
        for first in range(0, len(weight), rows):
            below = np.take(weight[first : first + rows], donor, axis=1)
            below *= mass
            np.cumsum(below, axis=1, out=below)
            # Row by row: on one ascending line of all rows the place of a row would round its sums.
            place = np.array([np.searchsorted(one, (_LEVELS - NEARLY) * one[-1]) for one in below])
            out[first : first + rows, phase] = values[np.minimum(place, len(values) - 1)]
    return out


def steps_of(atoms: F32) -> Steps:
    """Values of atoms by phase in ascending order, whose each is, and its mass: of a slow seller most are 0, once.

    Examples
    --------
    >>> ((values, whose, mass),) = steps_of(np.array([[[0.0] * 12 + [2.0]], [[1.0] * 13]], np.float32))
    >>> values.tolist(), whose.tolist(), mass.round(2).tolist()
    ([0.0, 1.0, 2.0], [0, 1, 0], [0.97, 1.0, 0.03])
    """
    return [_sorted(atoms[:, phase]) for phase in range(atoms.shape[1])]


def _sorted(atoms: F32) -> Step:
    begins = np.diff(atoms, axis=1, prepend=np.float32(-1)) != 0  # atoms are not below 0
    donor, level = np.nonzero(begins)
    mass = np.add.reduceat(np.tile(MASSES, len(atoms)), np.flatnonzero(begins))
    values = atoms[donor, level]
    order = np.argsort(values, kind="stable")
    return values[order], donor[order], mass[order]


def joined(ours: F32, own: F32, share: F64) -> F32:
    """Mixtures of two distributions for each row, the second with a share of its own, all (R, S, Q)."""
    both = np.concatenate([ours, own], axis=2)
    shares = np.concatenate([np.outer(1 - share, MASSES), np.outer(share, MASSES)], axis=1)  # (R, 2Q)
    mass = np.broadcast_to(shares[:, None], both.shape)
    order = np.argsort(both, axis=2, kind="stable")
    below = np.cumsum(np.take_along_axis(mass, order, axis=2), axis=2)
    place = (below[..., None] < _LEVELS - NEARLY).sum(axis=2)  # (R, S, Q)
    out: F32 = np.take_along_axis(np.take_along_axis(both, order, axis=2), np.minimum(place, both.shape[2] - 1), axis=2)
    return out
