"""When a failing model is left alone, and when it is tried again.

In: how calls ended, and when. Out: whether the model may be called now.
Must not know: threads, clocks, batches. Rule: a model that rested gets one call, and only its success ends the rest.
"""

from __future__ import annotations

FAILURES = 3
"""Failures in a row before a rest: one may be a bad batch, two a coincidence."""

REST_S = 1.0
"""The first rest: a model that comes back after a hiccup loses one second of forecasts."""

REST_MAX_S = 60.0
"""The longest rest: a broken model is asked once a minute, so that its recovery shows within one."""


class Breaker:
    """A circuit breaker: three failures in a row, or one hang, and the model rests.

    Examples
    --------
    >>> breaker = Breaker()
    >>> for now_s in (0.0, 0.1, 0.2):
    ...     breaker.begin()
    ...     breaker.failed(now_s)
    >>> breaker.allows(0.9), breaker.allows(1.3)
    (False, True)
    >>> breaker.begin()  # the one call that tries it
    >>> breaker.allows(1.3)
    False
    >>> breaker.succeeded()
    >>> breaker.allows(1.4)
    True
    """

    def __init__(self) -> None:
        self.failures = 0
        self._rest_s = 0.0  # 0 while the model is used as usual
        self._until_s = 0.0
        self._trying = False

    @property
    def open(self) -> bool:
        """True from the failure that began a rest until a call succeeds."""
        return self._rest_s > 0

    def allows(self, now_s: float) -> bool:
        """Tell whether the model may be called."""
        return not self.open or (now_s >= self._until_s and not self._trying)

    def begin(self) -> None:
        """Note that a call begins."""
        self._trying = self.open

    def rest_s(self, now_s: float) -> float:
        """Seconds until the model is tried again, 0 where it may be called."""
        return max(0.0, self._until_s - now_s) if self.open else 0.0

    def failed(self, now_s: float, *, hung: bool = False) -> None:
        """Note that a call failed; one that hangs has cost enough to begin a rest at once."""
        self.failures += 1
        self._trying = False
        if self.open:
            self._rest_s = min(2 * self._rest_s, REST_MAX_S)
        elif hung or self.failures >= FAILURES:
            self._rest_s = REST_S
        self._until_s = now_s + self._rest_s

    def succeeded(self) -> None:
        """Note that a call succeeded: the model is used as usual again."""
        self.failures, self._rest_s, self._trying = 0, 0.0, False
