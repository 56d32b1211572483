"""Counters, gauges and histograms that take totals and whole columns at once.

In: amounts, totals kept elsewhere, arrays of values. Out: prometheus-client's families, when somebody asks.
Must not know: what is measured, who asks. Rule: a counter never falls, whatever happens to the total that it follows.

prometheus-client's own meters take one value per call and cannot follow a total; its families and text forms are used
as they are. All methods may be called by any thread.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

Key = tuple[str, ...]


class Meter(ABC):
    """One metric: its name, what it says, the names of its labels.

    Parameters
    ----------
    name
        In full, as it is queried: with the unit, and ``_total`` for counters.
    about
        One sentence.
    labels
        Names of labels; every call gives a value for each.
    """

    def __init__(self, name: str, about: str, labels: Sequence[str] = ()) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self._lock = threading.Lock()

    @abstractmethod
    def family(self) -> Metric:
        """What prometheus-client writes."""

    @abstractmethod
    def forget(self, **labels: object) -> None:
        """Drop everything under labels that include these: what they name is no longer here."""

    def _key(self, labels: dict[str, object]) -> Key:
        if labels.keys() != set(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, not {tuple(labels)}")
        return tuple(str(labels[name]) for name in self.labels)

    def _under(self, keys: Sequence[Key], labels: dict[str, object]) -> list[Key]:
        """Those of the keys that have these labels."""
        wanted = [(self.labels.index(name), str(value)) for name, value in labels.items()]
        return [key for key in keys if all(key[at] == value for at, value in wanted)]


class Count(Meter):
    """A number that only grows.

    Examples
    --------
    >>> lines = Count("lines_total", "Lines read.", ["file"])
    >>> lines.inc(2, file="a")
    >>> lines.follow(10, file="b")  # a total that is kept elsewhere
    >>> lines.follow(4, file="b")  # it fell back, as after a crash: nothing is taken away
    >>> lines.follow(7, file="b")
    >>> [(sample.labels, sample.value) for sample in lines.family().samples]
    [({'file': 'a'}, 2.0), ({'file': 'b'}, 13.0)]
    """

    def __init__(self, name: str, about: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, about, labels)
        self._values: dict[Key, float] = {} if labels else {(): 0.0}
        self._marks: dict[Key, float] = {}

    def inc(self, amount: float = 1, **labels: object) -> None:
        """Grow by an amount, 0 to make the labels known."""
        if amount < 0:
            raise ValueError(f"{self.name} cannot fall by {-amount}")
        key = self._key(labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + amount

    def follow(self, total: float, **labels: object) -> None:
        """Grow by what a total has grown since it was last seen; a total that fell starts anew."""
        key = self._key(labels)
        with self._lock:
            grown = max(0.0, total - self._marks.get(key, 0.0))
            self._marks[key] = total
            self._values[key] = self._values.get(key, 0.0) + grown

    def begin(self, total: float, **labels: object) -> None:
        """Take a total as it is, and count only what comes on top: it was reached elsewhere, or before."""
        key = self._key(labels)
        with self._lock:
            self._marks[key] = total
            self._values.setdefault(key, 0.0)

    def forget(self, **labels: object) -> None:
        """Drop totals that were followed; the counts stay, for a counter that vanishes and comes back says too much."""
        with self._lock:
            for key in self._under(list(self._marks), labels):
                del self._marks[key]

    def family(self) -> Metric:
        """What prometheus-client writes."""
        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        with self._lock:
            for key, value in self._values.items():
                family.add_metric(key, value)
        return family


class Level(Meter):
    """A number that rises and falls.

    Parameters
    ----------
    name, about, labels
        As for every meter.
    read
        Gives the value when somebody asks; None where it cannot.

    Examples
    --------
    >>> depth = Level("depth_metres", "How deep.", ["lake"])
    >>> depth.set(3, lake="a")
    >>> depth.set(4, lake="b")
    >>> depth.forget(lake="a")
    >>> [(sample.labels, sample.value) for sample in depth.family().samples]
    [({'lake': 'b'}, 4.0)]
    """

    def __init__(
        self, name: str, about: str, labels: Sequence[str] = (), *, read: Callable[[], float | None] | None = None
    ) -> None:
        super().__init__(name, about, labels)
        self._values: dict[Key, float] = {} if labels or read else {(): 0.0}
        self._read = read

    def set(self, value: float, **labels: object) -> None:
        """Take a value."""
        key = self._key(labels)
        with self._lock:
            self._values[key] = float(value)

    def set_only(self, value: float, **labels: object) -> None:
        """Take a value, and forget those under all other labels."""
        key = self._key(labels)
        with self._lock:
            self._values = {key: float(value)}

    def forget(self, **labels: object) -> None:
        """Drop everything under labels that include these: what they name is no longer here."""
        with self._lock:
            for key in self._under(list(self._values), labels):
                del self._values[key]

    def family(self) -> Metric:
        """What prometheus-client writes."""
        family = GaugeMetricFamily(self.name, self.about, labels=self.labels)
        if self._read is not None and (now := self._read()) is not None:
            family.add_metric((), now)
        with self._lock:
            for key, value in self._values.items():
                family.add_metric(key, value)
        return family


class Spread(Meter):
    """How values are spread: a histogram that takes numbers or whole arrays of them.

    Parameters
    ----------
    name, about, labels
        As for every meter.
    bounds
        Upper ends of the buckets, rising; infinity is added.

    Examples
    --------
    >>> waits = Spread("wait_seconds", "How long.", [0.1, 1])
    >>> waits.observe(0.05)
    >>> waits.observe(np.array([0.1, 0.5, 30.0, np.nan]))
    >>> [(sample.name, round(sample.value, 9)) for sample in waits.family().samples]
    [('wait_seconds_bucket', 2.0), ('wait_seconds_bucket', 3.0), ('wait_seconds_bucket', 4.0),
     ('wait_seconds_count', 4.0), ('wait_seconds_sum', 30.65)]
    """

    def __init__(self, name: str, about: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        super().__init__(name, about, labels)
        self.bounds = tuple(float(bound) for bound in bounds)
        self._edges = np.array(self.bounds)
        self._ends = [*(f"{bound:.15g}" for bound in self.bounds), "+Inf"]
        self._counts: dict[Key, npt.NDArray[np.int64]] = {}
        self._sums: dict[Key, float] = {}
        if not labels:
            self._counts[()], self._sums[()] = self._nothing(), 0.0

    def observe(self, values: float | npt.NDArray[np.generic], **labels: object) -> None:
        """Count values; those below 0 count as 0 (clocks differ), those that are no numbers not at all."""
        key = self._key(labels)
        if isinstance(values, np.ndarray):
            self._observe_many(key, values.astype(np.float64).ravel())
        elif np.isfinite(values):
            value = max(0.0, float(values))
            with self._lock:
                self._counts.setdefault(key, self._nothing())[bisect_left(self.bounds, value)] += 1
                self._sums[key] = self._sums.get(key, 0.0) + value

    def _observe_many(self, key: Key, values: npt.NDArray[np.float64]) -> None:
        values = np.maximum(values[np.isfinite(values)], 0.0)
        counts = np.bincount(np.searchsorted(self._edges, values), minlength=len(self._ends))
        with self._lock:
            self._counts.setdefault(key, self._nothing())[:] += counts
            self._sums[key] = self._sums.get(key, 0.0) + float(values.sum())

    def forget(self, **labels: object) -> None:
        """Nothing to drop: what was observed stays observed."""

    def family(self) -> Metric:
        """What prometheus-client writes."""
        family = HistogramMetricFamily(self.name, self.about, labels=self.labels)
        with self._lock:
            for key, counts in self._counts.items():
                buckets = list(zip(self._ends, np.cumsum(counts, dtype=np.float64).tolist(), strict=True))
                family.add_metric(key, buckets, self._sums[key])
        return family

    def _nothing(self) -> npt.NDArray[np.int64]:
        return np.zeros(len(self._ends), np.int64)
