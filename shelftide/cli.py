"""The program `shelftide`: its commands, and how each ends.

In: arguments. Out: an exit code: 0 ok, 1 failure, 2 wrong usage or input, 130 interrupted.
Must not know: what a command does. Rule: what a user can get wrong ends in one sentence on stderr, never a traceback;
what has a traceback is a fault of this program.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from shelftide import (
    commands_broker,
    commands_data,
    commands_demo,
    commands_doctor,
    commands_learn,
    commands_models,
    commands_produce,
    commands_registry,
    commands_replay,
    commands_settings,
    commands_subscribe,
    commands_topics,
    commands_train,
    commands_worker,
)

app = typer.Typer(
    help="A streaming real-time forecasting engine for shops: events in, forecasts, price alerts and triggers out.",
    epilog="Progress and notes go to stderr, results to stdout; --json makes them machine-readable. "
    "Exit codes: 0 ok, 1 failure, 2 wrong usage or input, 3 degraded, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(commands_demo.demo)
app.command("replay")(commands_replay.replay)
app.command("convert")(commands_data.convert)
app.command("simulate")(commands_data.simulate)
app.command("backtest")(commands_models.backtest)
app.command("train")(commands_train.train)
app.command("produce")(commands_produce.produce)
app.command("subscribe")(commands_subscribe.subscribe)
app.command("worker")(commands_worker.worker)
app.command("learn")(commands_learn.learn)
app.command("doctor")(commands_doctor.doctor)
app.command("settings")(commands_settings.settings)
app.add_typer(commands_topics.app, name="topics")
app.add_typer(commands_broker.app, name="broker")
app.add_typer(commands_registry.app, name="models")

OK, FAILURE, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

_FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EPIPE}
"""What the machine refuses although the command was right; every other error of the system comes from a wrong path."""


def main() -> None:
    """Run the program with the arguments of the process, and leave it with an exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a script would ignore it: files must not stay
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code comes back."""
    try:
        code = app(list(arguments), prog_name="shelftide", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _wrong_usage(error)
    except BrokenPipeError:
        return _broken_pipe()
    except MemoryError:
        return say("there is not enough memory; lower --max-series or --shards", FAILURE)
    except Exception as error:
        if not isinstance(error, _user_errors()):
            raise
        if isinstance(error.__cause__, BrokenPipeError):
            return _broken_pipe()
        return say(_sentence(error), _code(error))
    if code == INTERRUPTED:
        return say("interrupted; files that were being written are gone, those of earlier runs stay", INTERRUPTED)
    return code if isinstance(code, int) else OK


def _wrong_usage(error: typer.TyperException) -> int:
    message = error.format_message()
    if not message:
        return WRONG_INPUT  # no arguments: the help was printed
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "shelftide"
    message = message.rstrip(".")
    return say(f"{message}; see `{command} --help`", getattr(error, "exit_code", WRONG_INPUT))


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors whose text is written for the user. Imported late: only a run that failed pays for it."""
    from models.forecast import ForecastError
    from models.task import TaskError
    from shelftide.settings import SettingsError
    from streams.calendar import ZoneError
    from streams.conversion import ConvertError
    from streams.files import FileError
    from streams.kafka.broker_jars import BrokerError
    from streams.kafka.commands import CommandError
    from streams.kafka.connection import UnreachableError
    from streams.kafka.ending import WorkerError
    from streams.kafka.produce import ProduceError
    from streams.kafka.reader import SubscribeError
    from streams.kafka.source import SourceError
    from streams.kafka.topics import TopicsError
    from streams.kafka.verify import VerifyError
    from streams.partition import PartitionerError
    from streams.policy import ReplenishmentError
    from streams.shop import ShopError

    known = (ForecastError, TaskError, SettingsError, ZoneError, ConvertError, FileError, PartitionerError)
    kafka = (BrokerError, CommandError, ProduceError, SourceError, SubscribeError, TopicsError, UnreachableError)
    return (*known, *kafka, VerifyError, WorkerError, ReplenishmentError, ShopError, OSError)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        return f"{error.filename!r}: {what}" if error.filename else what
    return str(error)


def _code(error: Exception) -> int:
    """1 where the machine failed, 2 where the input or the usage was wrong; an error that knows which says so."""
    if isinstance(code := getattr(error, "code", None), int):
        return code
    if getattr(error, "wrong_input", True) is False:
        return FAILURE
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            plain = type(cause) is OSError and cause.errno is None  # a library's word that writing failed
            return FAILURE if plain or cause.errno in _FAILURES else WRONG_INPUT
        cause = cause.__cause__
    return WRONG_INPUT


def say(sentence: str, code: int) -> int:
    """Print one line on stderr, and give the exit code back; control characters of odd paths are shown, not obeyed."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence)
    print(f"shelftide: {line}", file=sys.stderr)  # noqa: T201 - the door speaks to people
    return code


def _broken_pipe() -> int:
    """The reader of stdout has gone: say nothing, and let nothing be flushed at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILURE


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
