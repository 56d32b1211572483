"""Curves of random kernels, and structural models with states that drift.

In: a generator, a `Plan`, scales. Out: `Rates`.
Must not know: how demand is drawn. Rule: nothing here is a shop on purpose; these families teach shapes.

Curves are sums and products of draws of Gaussian processes, in the spirit of KernelSynth (Ansari et al., "Chronos:
Learning the Language of Time Series", TMLR 2024). They are drawn by random Fourier features (Rahimi and Recht, "Random
Features for Large-Scale Kernel Machines", NIPS 2007), which cost N D and not N D^3. States follow Durbin and Koopman,
"Time Series Analysis by State Space Methods", ch. 3: local level, slope, weekday states that sum to 0, on the
logarithm of demand, so that errors are multiplicative.
"""

from __future__ import annotations

import numpy as np

from models.corpus_observe import COUNTS, EXACT, GAMMA, Rates, plain
from models.corpus_plan import Plan
from models.corpus_shapes import YEAR_DAYS, normal, response, yearly
from models.corpus_spells import chosen, log_uniform
from models.forecast import F32

FEATURES = 24
HARMONICS = 4
PERIODS = (7.0, 7.0, 7.0, 14.0, 30.44, 91.3, YEAR_DAYS, YEAR_DAYS)
"""Periods that a curve may have, the usual ones more often."""

ANSWERS = 0.4


def curves(rng: np.random.Generator, plan: Plan, scale: F32) -> Rates:
    """Draw curves, made positive by exp or softplus, with Poisson, gamma or no noise."""
    series, days = len(plan), len(plan.day)
    place = np.arange(days, dtype=np.float32)
    smooth = _smooth(rng, place, log_uniform(rng, 10, 400, series))
    rough = _smooth(rng, place, log_uniform(rng, 1.5, 15, series))
    weekly = _periodic(rng, place, np.full(series, 7, np.float32))
    other = _periodic(rng, place, rng.choice(PERIODS, series).astype(np.float32))
    product = other * _smooth(rng, place, log_uniform(rng, 30, 400, series))
    line = normal(rng, 0.6, series).astype(np.float32) * np.linspace(-1, 1, days, dtype=np.float32)
    total = np.zeros((series, days), np.float32)
    for part, share in ((smooth, 0.7), (rough, 0.4), (weekly, 0.7), (other, 0.4), (product, 0.4), (line, 0.3)):
        size = np.abs(rng.normal(0, 0.6, series)) * chosen(rng, share, series)
        total += part * size[:, None].astype(np.float32)
    total = np.clip(total + response(rng, plan, chosen(rng, ANSWERS, series)), -9, 9)
    softplus = np.logaddexp(0, 2 * total)
    rate = np.where(chosen(rng, 0.5, series)[:, None], np.exp(total), softplus)
    noise = rng.choice([COUNTS, GAMMA, EXACT], series, p=[0.5, 0.35, 0.15])
    poisson = (noise == COUNTS) & chosen(rng, 0.5, series)
    spread = np.where(poisson, 1e-5, log_uniform(rng, 0.001, 0.8, series))
    return plain(np.where(plan.shut, np.float32(0), rate), spread.astype(np.float32)[:, None], noise)


def _smooth(rng: np.random.Generator, place: F32, length: F32) -> F32:
    """A draw of a squared-exponential kernel of that length in days, float32 (N, D)."""
    shape = (len(length), FEATURES, 1)
    speed = rng.standard_normal(shape, dtype=np.float32) / length[:, None, None]
    phase = rng.random(shape, dtype=np.float32) * np.float32(2 * np.pi)
    found: F32 = np.cos(speed * place + phase).sum(axis=1) * np.float32(np.sqrt(2 / FEATURES))
    return found


def _periodic(rng: np.random.Generator, place: F32, period: F32) -> F32:
    """A draw of a periodic kernel: harmonics whose variance falls as the kernel is smoother, float32 (N, D)."""
    order = np.arange(1, HARMONICS + 1, dtype=np.float32)
    fall = np.exp(-(order**2) * rng.uniform(0.02, 0.6, (len(period), 1)))
    fall /= np.sqrt((fall**2).sum(axis=1, keepdims=True))
    weight = rng.standard_normal((2, len(period), HARMONICS)) * fall
    turn = (2 * np.pi * place / period[:, None]).astype(np.float32)
    found = np.zeros(turn.shape, np.float32)
    for number in range(HARMONICS):
        angle = turn * order[number]
        found += weight[0, :, number, None].astype(np.float32) * np.cos(angle)
        found += weight[1, :, number, None].astype(np.float32) * np.sin(angle)
    return found


def states(rng: np.random.Generator, plan: Plan, scale: F32) -> Rates:
    """Draw local levels with slopes and weekday states; errors multiply."""
    series = len(plan)
    total = _states(rng, series, len(plan.day))
    total += response(rng, plan, chosen(rng, ANSWERS, series)) + yearly(rng, plan.day, series, 0.4)
    error = log_uniform(rng, 0.02, 0.7, series)[:, None]
    total += error * rng.standard_normal(total.shape, dtype=np.float32)
    rate = np.exp(np.clip(total, -12, 12))
    noise = rng.choice([COUNTS, EXACT], series, p=[0.7, 0.3])
    small = log_uniform(rng, 1e-5, 0.3, series)[:, None]
    return plain(np.where(plan.shut, np.float32(0), rate), small, noise)


def _states(rng: np.random.Generator, series: int, days: int) -> F32:
    """Level and weekday states, day by day, float32 (N, D)."""
    push = log_uniform(rng, 0.002, 0.12, series) * chosen(rng, 0.85, series)
    turn = log_uniform(rng, 1e-5, 4e-3, series) * chosen(rng, 0.5, series)
    keep = rng.uniform(0.9, 0.998, series)
    home = log_uniform(rng, 1e-4, 0.02, series)  # a weak pull back, so that levels stay of one world
    swing = log_uniform(rng, 1e-3, 0.08, series) * chosen(rng, 0.7, series)
    level, slope = np.zeros(series), rng.normal(0, 1, series) * turn
    week = rng.normal(0, 1, (7, series)) * log_uniform(rng, 0.05, 0.7, series)
    noise = rng.standard_normal((days, 3, series))
    found = np.empty((days, series), np.float32)
    for day in range(days):
        slope = keep * slope + turn * noise[day, 0]
        level = (1 - home) * level + slope + push * noise[day, 1]
        week[day % 7] += swing * noise[day, 2]
        found[day] = level + week[day % 7] - week.mean(axis=0)
    return np.ascontiguousarray(found.T)
