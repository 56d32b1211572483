"""What an item without history should be forecast as: a mixture of what other items do.

In: items with history, how like them each item without is (words, kinds), what it sold so far. Out: quantiles per phase
of the season, float32 (R, S, Q).
Must not know: text encoders, shops, files. Rule: what is borrowed is the mixture of the others' distributions, not the
mean of their quantiles: nobody knows which of them the item will be like, and most of the spread lies between items.

Each *donor* gives the quantiles of each phase as atoms, with the masses that lie around their levels, times its weight:

1. how like it is: ``exp(cosine / temperature)`` times a factor for every kind in common. Temperature and factors are
   those that forecast the donors best, each from all others (`choose`): nothing later than the batch is looked at;
2. once the item has been on sale for some days, how likely the donor would have sold the same (`lean`), where an
   item that is like no donor is one more donor.

The second is Bayes' rule with the first as prior. On windows before the first cutoff of four tasks (1 to 6 days seen)
it was ahead, on three of them, of the donors rescaled towards the item's mean by n / (n + k), whatever the k, and of a
negative binomial likelihood; ``python -m load_tests.cold_start`` prints what borrowing is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from models.baseline import phase_quantiles, phase_samples
from models.forecast import F32, LEVELS, Bools, ForecastBatch, take
from models.measures import SCORED, pinball
from models.mixture import F64, MASSES, TILE_CELLS, Steps, joined, mixture, steps_of
from models.quantiles import I64, quantiles_of

MOST_DONORS = 2048
"""Donors of a batch at most, evenly spread: a batch of as many cold rows then takes seconds."""

MOST_JUDGED = 512
"""Donors that temperature and factors are judged on at most, evenly spread."""

TEMPERATURES: tuple[float, ...] = (0.02, 0.035, 0.05, 0.07, 0.1, 0.15, 0.25, 0.5, float("inf"))
"""Tried in turn: at .02 the nearest few speak, at infinity all alike."""

FACTORS: tuple[float, ...] = (1.0, 2.0, 4.0, 16.0, 64.0)
"""Tried for each kind in turn; the first is that of a kind that says nothing."""

NEAR = 0.3
"""Width of the kernel around each atom, on the scale of asinh: a third more or less is about the same."""

TRUST = 0.8
"""Power of the likelihood: days of one item are not independent. Between .6 and 1 it hardly mattered."""

FIRST, ALONE = 1e-5, 0.03
"""Likelihood of the first day and of each further one of an item that is like no donor: a day alone is no level, for it
may be a bulk order, but days on end on which a donor would sell half or twice as much are. With few donors it helps."""

LEAST_ALONE = 0.005
"""Below this probability an item is not thought of as being like none: no published quantile would move."""

_LEVELS = np.array(LEVELS)
_SCORED = [LEVELS.index(level) for level in SCORED]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like R items are to N others.

    Attributes
    ----------
    cosine
        Of their texts' embeddings, (R, N), or None where there are no texts.
    same
        Whether they are of the same kind, one array (R, N) for each sort of kind (category, brand).
    """

    cosine: F64 | None = None
    same: tuple[Bools, ...] = ()

    def rows(self, rows: I64 | slice) -> Likeness:
        """Some of the R items."""
        cosine = None if self.cosine is None else self.cosine[rows]
        return Likeness(cosine, tuple(one[rows] for one in self.same))


@dataclass(frozen=True, slots=True)
class Choice:
    """What likeness is worth: a temperature for the cosine, a factor per sort of kind."""

    temperature: float = float("inf")
    factors: tuple[float, ...] = ()


def likeness(embeddings: tuple[F32, F32] | None = None, kinds: tuple[tuple[I64, ...], ...] = ()) -> Likeness:
    """Compare items by embeddings of length one, (R, E) and (N, E), and by codes of kinds, (R,) and (N,), -1 unknown.

    A text that is empty has the embedding zero, and is as far from all.

    Examples
    --------
    >>> found = likeness((np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[:1]), ((np.array([3, 4]), np.array([4])),))
    >>> found.cosine.tolist(), found.same[0].tolist()
    ([[1.0], [0.0]], [[False], [True]])
    """  # noqa: E501 - one call
    same = tuple((ours[:, None] == theirs) & (ours[:, None] >= 0) for ours, theirs in kinds)
    if embeddings is None:
        return Likeness(None, same)
    ours, theirs = (one.astype(np.float64) for one in embeddings)
    return Likeness(np.round(ours @ theirs.T, 4), same)  # rounded: how a library adds up must not show


def weights(like: Likeness, choice: Choice, shape: tuple[int, int]) -> F64:
    """Weight of each donor for each item, (R, N), the largest of a row 1.

    Examples
    --------
    >>> weights(Likeness(np.array([[0.9, 0.8]])), Choice(0.1), (1, 2)).round(3).tolist()
    [[1.0, 0.368]]
    """
    log = np.zeros(shape)
    if like.cosine is not None:
        log += like.cosine / choice.temperature
    for same, factor in zip(like.same, choice.factors, strict=True):
        log += same * np.log(factor)
    out: F64 = np.exp(log - log.max(axis=1, keepdims=True, initial=-np.inf))
    return out


def lean(weight: F64, atoms: F32, samples: F32) -> tuple[F64, F64]:
    """Lean weights towards the donors that would have sold what was seen.

    Parameters
    ----------
    weight, atoms
        As of `mixture`.
    samples
        What each item sold by phase, NaN where there is nothing, (R, S, n).

    Returns
    -------
    The weights times the likelihood, (R, N), the largest of a row 1; those of items that have not sold yet as before.
    The probability that an item is like no donor, (R,): 0 without samples.

    Examples
    --------
    >>> atoms = np.repeat(np.array([1.0, 10.0], np.float32), 13).reshape(2, 1, 13)
    >>> leant, alone = lean(np.ones((2, 2)), atoms, np.array([[[9.0]], [[900.0]]], np.float32))
    >>> leant.round(3).tolist(), alone.round(2).tolist()
    ([[0.003, 1.0], [0.292, 1.0]], [0.0, 0.31])
    """
    donors, season, levels = atoms.shape
    unit = _unit(atoms)
    place = np.arcsinh(atoms.astype(np.float64) / unit)  # (N, S, Q)
    out, alone = weight.copy(), np.zeros(len(weight))
    rows = max(1, TILE_CELLS // (donors * levels))
    for first in range(0, len(weight), rows):
        part = slice(first, first + rows)
        log, days = np.zeros_like(out[part]), np.isfinite(samples[part]).sum(axis=(1, 2))
        for phase, n in product(range(season), range(samples.shape[2])):
            seen = np.flatnonzero(np.isfinite(samples[part, phase, n]))
            if len(seen):
                log[seen] += _told(samples[part, phase, n][seen], place[:, phase], unit)
        told = np.log(np.maximum(out[part], 1e-300)) + TRUST * log
        most = told.max(axis=1, keepdims=True)
        out[part] = np.exp(told - most)
        itself = TRUST * (np.log(FIRST) + (days - 1) * np.log(ALONE)) - most[:, 0]  # as one more donor
        alone[part] = 1 / (1 + np.cumsum(out[part], axis=1)[:, -1] * np.exp(np.minimum(-itself, 700)))
    return out, np.where(np.isfinite(samples).any(axis=(1, 2)), alone, 0)


def _told(sold: F32, place: F64, unit: float) -> F64:
    """Logarithm of the likelihood of what R items sold for each donor, (R, N); few amounts are sold by many items."""
    amounts, which = np.unique(np.maximum(sold, 0), return_inverse=True)
    out = np.empty((len(amounts), len(place)))
    rows = max(1, TILE_CELLS // place.size)
    for first in range(0, len(amounts), rows):
        own = np.arcsinh(amounts[first : first + rows].astype(np.float64) / unit)
        gap = (own[:, None, None] - place) / NEAR
        out[first : first + rows] = np.log(np.einsum("rnq,q->rn", (1 + gap * gap) ** -2.0, MASSES))
    told: F64 = out[which]
    return told


def _own(atoms: F32, weight: F64, samples: F32) -> F32:
    """What an item is that is like no donor: its own mean, in the shape that donors have around theirs."""
    mean = np.einsum("nsq,q->n", atoms, MASSES / atoms.shape[1])
    sells = mean > 0
    if not sells.any():
        return np.zeros((len(weight), *atoms.shape[1:]), np.float32)
    shape = mixture((atoms[sells] / mean[sells, None, None]).astype(np.float32), weight[:, sells] + 1e-9)
    days = np.maximum(np.isfinite(samples).sum(axis=(1, 2)), 1)
    level = np.maximum(np.nan_to_num(samples), 0).sum(axis=(1, 2)) / days
    own: F32 = (shape * level[:, None, None]).astype(np.float32)
    return own


def _unit(atoms: F32) -> float:
    """Demand below which amounts differ by what they are, not by how many times: one, or less where little is much."""
    sold = atoms[atoms > 0]
    return min(1.0, float(np.median(sold))) if len(sold) else 1.0


def choose(whole: F32, like: Likeness, judged: I64) -> Choice:
    """Choose temperature and factors by which some donors are forecast best, each from all others.

    Parameters
    ----------
    whole
        Quantiles of each donor over all phases at `LEVELS`, (N, Q): its forecast as a donor, its truth as an item.
    like
        How like the judged donors are to all, (J, N).
    judged
        Their numbers, (J,).
    """
    kinds = len(like.same)
    best = Choice(TEMPERATURES[-1], (FACTORS[0],) * kinds)
    if len(whole) < 3 or (like.cosine is None and not kinds):
        return best
    least = _loss(whole, like, judged, best)
    knobs = [*range(kinds), kinds, *range(kinds)] if like.cosine is not None else [*range(kinds)] * 2
    for knob in knobs:
        for value in TEMPERATURES if knob == kinds else FACTORS:
            tried = _turned(best, knob, value)
            loss = _loss(whole, like, judged, tried)
            if loss < least:
                best, least = tried, loss
    return best


def _turned(choice: Choice, knob: int, value: float) -> Choice:
    """The choice with another factor of one kind, or, beyond them, another temperature."""
    if knob == len(choice.factors):
        return replace(choice, temperature=value)
    return replace(choice, factors=(*choice.factors[:knob], value, *choice.factors[knob + 1 :]))


def _loss(whole: F32, like: Likeness, judged: I64, choice: Choice) -> float:
    """Pinball loss of the judged donors, each forecast from all others."""
    weight = weights(like, choice, (len(judged), len(whole)))
    weight += 1e-9  # where everything but itself is far away, all are
    weight[np.arange(len(judged)), judged] = 0
    said = mixture(whole[:, None], weight)[:, 0, _SCORED].astype(np.float64)  # (J, scored)
    truth = whole[judged].astype(np.float64)  # (J, Q)
    losses = pinball(truth, np.repeat(said[:, None], truth.shape[1], axis=1), _LEVELS[_SCORED]).mean(axis=2)
    return float((losses * MASSES).sum())


@dataclass(frozen=True)
class Donors:
    """Items that lend, apart from their histories: enough to forecast items of a kind, or of some days.

    Attributes
    ----------
    atoms
        What each sells by phase of the season at `LEVELS`, float32 (N, S, Q).
    kinds
        Codes of each for every sort of kind, (N,), -1 unknown.
    choice
        What likeness is worth among them.
    """

    atoms: F32
    kinds: tuple[I64, ...] = ()
    choice: Choice = Choice()

    def __len__(self) -> int:
        return len(self.atoms)

    @cached_property
    def _steps(self) -> Steps:
        """Sorted once: an engine asks the same donors for a few items, again and again."""
        return steps_of(self.atoms)

    def lend(self, sold: F32, kinds: tuple[I64, ...] = ()) -> F32:
        """What items of some kinds should be forecast as that sold so far what `lean` calls samples.

        Returns
        -------
        Float32, (R, S, Q).

        Examples
        --------
        >>> donors = Donors(np.repeat(np.array([1.0, 10.0, 10.0], np.float32), 13).reshape(3, 1, 13))
        >>> donors.lend(np.array([[[np.nan]], [[1.0]]], np.float32))[:, 0, 6].tolist()
        [10.0, 1.0]
        """
        seen = np.isfinite(sold).any(axis=0)  # what no item sold on tells them not apart
        told = np.column_stack([*kinds, np.nan_to_num(sold[:, seen], nan=-1)]).astype(np.float64)
        _, first, which = np.unique(told, axis=0, return_index=True, return_inverse=True)
        like = likeness(kinds=tuple((own[first], theirs) for own, theirs in zip(kinds, self.kinds, strict=True)))
        weight = weights(like, self.choice, (len(first), len(self)))
        lent: F32 = _lent(self.atoms, weight, sold[first], self._steps)[which.ravel()]
        return lent


def donors_of(lenders: ForecastBatch, kinds: tuple[I64, ...] = (), most_judged: int = MOST_JUDGED) -> Donors:
    """Take from items of a season of history or more (`donors`) what they lend, by kind.

    Parameters
    ----------
    lenders
        The items, N of them.
    kinds
        Codes of each for every sort of kind, (N,), -1 unknown.
    most_judged
        Donors that likeness is judged on at most.
    """
    at = judged(len(lenders), most_judged)
    like = likeness(kinds=tuple((codes[at], codes) for codes in kinds))
    return Donors(phase_quantiles(lenders), kinds, choose(_whole(lenders), like, at))


def donors(batch: ForecastBatch, most: int = MOST_DONORS) -> I64:
    """Rows that others may borrow from: those with a season of history, evenly spread where there are many."""
    rows = np.flatnonzero((np.isfinite(batch.demand) & batch.is_open).sum(axis=1) >= batch.season)
    return rows[:: max(1, -(-len(rows) // most))]


def borrow(
    lenders: ForecastBatch, cold: ForecastBatch, like: Likeness | None = None, among: Likeness | None = None
) -> F32:
    """What items with little history or none should be forecast as.

    Parameters
    ----------
    lenders
        Items with a season of history or more (`donors`), N of them.
    cold
        Items without, R of them, at the same phase of the season.
    like, among
        How like the cold items are to the lenders, (R, N), and those of `judged` to all, (J, N). Without either all
        lenders are alike.

    Returns
    -------
    Float32, (R, S, Q), to be given as `ForecastBatch.borrowed`; NaN where there is no lender.

    Examples
    --------
    >>> from tests.batches import batch_of
    >>> old, new = batch_of([[2.0] * 14, [4.0] * 14, [4.0] * 14]), batch_of([[np.nan] * 14, [np.nan] * 13 + [2.0]])
    >>> borrow(old, new)[:, 0, 6].tolist()
    [4.0, 2.0]
    """
    if not len(lenders):
        return np.full((len(cold), cold.season, len(LEVELS)), np.nan, np.float32)
    like, among = (Likeness(), Likeness()) if like is None or among is None else (like, among)
    atoms = phase_quantiles(lenders)
    steps, choice = steps_of(atoms), choose(_whole(lenders), among, judged(len(lenders)))
    out = np.empty((len(cold), cold.season, len(LEVELS)), np.float32)
    rows = max(1, TILE_CELLS // len(lenders))
    for first in range(0, len(cold), rows):
        part = slice(first, first + rows)
        new = take(cold, part)
        sold = phase_samples(new.demand, new.is_open, new.season)
        out[part] = _lent(atoms, weights(like.rows(part), choice, (len(new), len(lenders))), sold, steps)
    return out


def _lent(atoms: F32, weight: F64, sold: F32, steps: Steps | None = None) -> F32:
    """The mixture of donors for each item, leant towards those that would have sold the same, (R, S, Q)."""
    leant, alone = lean(weight, atoms, sold)
    out = mixture(atoms, leant, steps)
    if (some := alone > LEAST_ALONE).any():
        out[some] = joined(out[some], _own(atoms, weight[some], sold[some]), alone[some])
    return out


def _whole(lenders: ForecastBatch) -> F32:
    """Quantiles of each donor over all phases, (N, Q)."""
    samples = phase_samples(lenders.demand, lenders.is_open, lenders.season).reshape(len(lenders), -1)
    return quantiles_of(np.sort(samples, axis=1), (~np.isnan(samples)).sum(axis=1), LEVELS)


def judged(lenders: int, most: int = MOST_JUDGED) -> I64:
    """Numbers of the lenders that likeness is judged on, evenly spread."""
    return np.arange(0, lenders, max(1, -(-lenders // most)))
