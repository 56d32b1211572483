"""Which model answers in a shard: that of the settings, or one that a command named since, whichever was decided last.

In: the model of the settings, commands `promote` and `rollback`. Out: a forecaster; records for `engine.model.v1`; a
state record.
Must not know: engines, nets, how commands are read. Rule: a model that cannot be had changes nothing; a restart changes
nothing either, unless the settings now name another model than they did: then they were decided last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson
import structlog

from models.forecast import Forecaster, ForecastError
from streams.events import Promote, Rollback
from streams.outputs import Output, rfc3339
from streams.state import Record, pack, unpack

log = structlog.get_logger("shelftide.worker")

MODEL_TOPIC = "engine.model.v1"
CHAMPION_KEY = "shell/champion"
"""Of the state record; keys under ``shell/`` are the shell's, all others the engine's."""

HISTORY = 16
"""Models remembered, so that each can be brought back: as many as a registry remembers."""

REMEMBERED = 64
"""Commands whose ids are remembered: a command that was written twice is obeyed once."""


class Models:
    """Forecasters of a worker by published name; all shards share them.

    Parameters
    ----------
    own
        That of the settings.
    find
        Reads another by digest or published name; raises `ForecastError` where there is none.
    """

    def __init__(self, own: Forecaster, find: Callable[[str], Forecaster]) -> None:
        self.own, self._find = own, find
        self._known = {own.name: own}

    def named(self, name: str) -> Forecaster:
        """The forecaster of a digest or published name; checked, and the same for all who ask.

        Raises
        ------
        ForecastError
            If there is none here, or it is damaged.
        """
        if (found := self._known.get(name)) is None:
            found = self._find(name)
            found = self._known.setdefault(found.name, found)
        return found


@dataclass(frozen=True, slots=True)
class Obeyed:
    """What became of a command: the record that tells of it, and why nothing changed where it was refused."""

    output: Output
    refused: str = ""


class Champion:
    """The model that answers in one shard.

    Parameters
    ----------
    models
        Of the worker.
    shard
        Number.

    Attributes
    ----------
    forecaster
        Who answers.
    """

    def __init__(self, models: Models, shard: int) -> None:
        self.forecaster = models.own
        self._models, self._shard = models, shard
        self._names = [models.own.name]  # the present one last
        self._settings = models.own.name
        self._seen: list[str] = []
        self._changed = False

    def obey(self, command: Promote | Rollback, clock_ms: int) -> Obeyed | None:
        """Let a command take effect; None where it was obeyed before or asks for what is."""
        if command.event_id in self._seen:
            return None
        self._seen = [*self._seen, command.event_id][-REMEMBERED:]
        self._changed, former = True, self.forecaster.name
        try:
            names = self._promoted(command) if isinstance(command, Promote) else self._rolled_back(command)
            forecaster = self._models.named(names[-1])
        except ForecastError as error:
            log.warning("model refused", shard=self._shard, command=command.event_id, reason=str(error))
            told = {"type": "model_refused", "reason": str(error)}
            return Obeyed(self._record(command, clock_ms, former, told), str(error))
        self._names, self.forecaster = names, forecaster
        if forecaster.name == former:
            return None
        what = "model_promoted" if isinstance(command, Promote) else "model_rolled_back"
        log.info(what.replace("_", " "), shard=self._shard, model=forecaster.name, former=former)
        return Obeyed(self._record(command, clock_ms, former, {"type": what}))

    def _promoted(self, command: Promote) -> list[str]:
        name = self._models.named(command.model or "").name
        return self._names if name == self._names[-1] else [*self._names, name][-HISTORY:]

    def _rolled_back(self, command: Rollback) -> list[str]:
        """The history up to the model that comes back; one that is not in it comes on top, as its sender wants it."""
        if command.model is None:
            if len(self._names) < 2:
                raise ForecastError("there is no former model to bring back; promote one by its name")
            return self._names[:-1]
        name = self._models.named(command.model).name
        return self._names[: self._names.index(name) + 1] if name in self._names else [*self._names, name][-HISTORY:]

    def _record(self, command: Promote | Rollback, clock_ms: int, former: str, told: dict[str, str]) -> Output:
        """What `engine.model.v1` says of the shard: who answers from this commit on."""
        key, event_id = f"shard-{self._shard}", f"{command.event_id}-shard-{self._shard}"
        value = {
            **told, "event_id": event_id, "event_time": rfc3339(clock_ms), "shard": self._shard,
            "model": self.forecaster.name, "former": former, "command": command.event_id,
        }  # fmt: skip
        return Output(MODEL_TOPIC, key.encode(), orjson.dumps(value), event_id, clock_ms)

    def changes(self) -> Iterator[Record]:
        """The state record, where something changed since the last call."""
        if self._changed:
            self._changed = False
            yield CHAMPION_KEY, pack({"settings": self._settings, "names": self._names, "seen": self._seen})

    def restore(self, value: bytes) -> None:
        """Take over what was decided before a restart.

        A model that is no longer here is kept in mind, and that of the settings answers: another start may find it.
        """
        state = unpack(CHAMPION_KEY, value)
        self._seen = list(state["seen"])
        if state["settings"] != self._settings:
            self._changed = True
            log.info("the settings name another model than before, which answers", model=self._settings)
            return
        self._names = list(state["names"])
        try:
            self.forecaster = self._models.named(self._names[-1])
        except ForecastError as error:
            log.error("the model that was promoted cannot be had; that of the settings answers", shard=self._shard,
                      model=self._names[-1], reason=str(error))  # fmt: skip
