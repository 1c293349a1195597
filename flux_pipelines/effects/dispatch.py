"""Sends a connection's effects: looks before it writes what may stand there already, and never guesses.

At least once is all that anybody can promise towards a system that one may lose the answer of; once is what comes of
looking. So an effect whose answer was lost, or whose sender died, is looked for before anything else is done about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from flux_pipelines.domain.errors import (
    AmbiguousSendError,
    CircuitOpenError,
    FluxError,
    PermissionLostError,
    RateLimitedError,
    ReauthorizationNeededError,
)
from flux_pipelines.state import Effect, Outbox, Sender

#: Nothing can be sent by this connection now, whatever the effect is: it is not the effect's fault.
_OF_THE_CONNECTION = (ReauthorizationNeededError, PermissionLostError, RateLimitedError, CircuitOpenError)


@dataclass(frozen=True, slots=True)
class Sent:
    """An effect was written.

    Args:
        remote_id: what the other system calls the object.
        remote_version: its own mark of the state it is in now; empty where it has none.

    """

    remote_id: str
    remote_version: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """An object of ours, as it stands at the other system.

    Args:
        remote_id: what the other system calls it.
        remote_version: its own mark of the state it is in.
        version: the version of the effect that it was written as, by what we wrote into it.

    """

    remote_id: str
    remote_version: str
    version: int


class Sink(Protocol):
    """What writes effects of one kind to another system.

    `batch` is how many effects go into one request, `settles_after` how long a request whose answer was lost may still
    be under way there: a look before that could miss what it writes.
    """

    batch: int
    settles_after: timedelta

    def look(self, effects: Sequence[Effect]) -> Mapping[str, Found]:
        """Return what stands there of some effects, by their keys; those that are not in it are surely not there.

        Raises:
            FluxError: it cannot be seen now.

        """

    def send(self, effects: Sequence[Effect]) -> Mapping[str, Sent | FluxError]:
        """Write effects, new ones and those with a `remote_id` as an update, and return what came of each, by key.

        An `AmbiguousSendError`, or none at all of an effect: nobody knows. Every other error: it was surely not written.

        Raises:
            FluxError: the same happened to all of them.

        """


@dataclass(slots=True)
class Dispatched:
    """What a dispatch did.

    Args:
        busy: whether somebody else is sending this connection's effects, and nothing was done.
        created: how many were written anew.
        updated: how many were written over an earlier version.
        found: how many stood there already, of a sender that had lost the answer or died.
        waiting: how many wait to be sent or looked for again.
        failed: how many were refused or given up.
        errors: what went wrong, each once, with the number of effects that it happened to.

    """

    busy: bool = False
    created: int = 0
    updated: int = 0
    found: int = 0
    waiting: int = 0
    failed: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def went_wrong(self, error: FluxError) -> None:
        """Note an error."""
        self.errors[str(error)] = self.errors.get(str(error), 0) + 1


def dispatch(outbox: Outbox, connection_key: str, sink: Sink) -> Dispatched:
    """Send a connection's effects until none is due.

    Args:
        outbox: where they wait.
        connection_key: the connection.
        sink: writes them.

    """
    report = Dispatched()
    with outbox.sender(connection_key) as sender:
        if sender is None:
            report.busy = True
            return report
        # What was lost before is looked for first: nothing new is begun with a system that cannot be looked at.
        if _resolve(sender, sink, report):
            _send(sender, sink, report)
    return report


def _resolve(sender: Sender, sink: Sink, report: Dispatched) -> bool:
    """Look for the effects of which it is not known whether they were written; return whether to go on."""
    while lost := sender.unresolved(sink.batch):
        there = _look(sender, sink, lost, report)
        if isinstance(there, FluxError):
            for effect in lost:
                sender.ambiguous(effect, str(there), look_after=sink.settles_after)
            report.waiting += len(lost)
            return False
        for effect in lost:
            if effect.key not in there and not sender.not_there(effect):
                return False
    return True


def _send(sender: Sender, sink: Sink, report: Dispatched) -> None:
    """Write what is due, until nothing is, or nothing can be."""
    while batch := sender.claim(sink.batch):
        # A sender before us may have lost more than its answer: a database that was restored has forgotten what it sent.
        unseen = [effect for effect in batch if not effect.remote_id]
        there = _look(sender, sink, unseen, report) if unseen else {}
        if isinstance(there, FluxError):
            for effect in batch:
                sender.not_sent(effect, str(there))
            report.waiting += len(batch)
            return
        left = [effect for effect in batch if effect.key not in there]
        if left and not (sender.lasts() and _write(sender, sink, left, report)):
            return


def _look(sender: Sender, sink: Sink, effects: Sequence[Effect], report: Dispatched) -> Mapping[str, Found] | FluxError:
    """Note the effects that stand at the other system, and return them, or why they cannot be seen."""
    try:
        there = sink.look(effects)
    except FluxError as error:
        report.went_wrong(error)
        return error
    for effect in effects:
        found = there.get(effect.key)
        if found is None:
            continue
        if found.version == effect.version:
            report.found += sender.sent(effect, found.remote_id, found.remote_version)
        else:
            sender.adopt(effect, found.remote_id, found.remote_version)
    return there


def _write(sender: Sender, sink: Sink, effects: Sequence[Effect], report: Dispatched) -> bool:
    """Write effects and note what came of each; return whether to go on."""
    results: Mapping[str, Sent | FluxError]
    try:
        results = sink.send(effects)
    except FluxError as error:
        results = {effect.key: error for effect in effects}
    going_on = True
    for effect in effects:
        result = results.get(effect.key) or AmbiguousSendError(
            "nothing was said of it", connection=effect.connection_key
        )
        if isinstance(result, Sent):
            mine = sender.sent(effect, result.remote_id, result.remote_version)
            if effect.remote_id:
                report.updated += 1
            else:
                report.created += 1
            going_on &= mine
            continue
        report.went_wrong(result)
        going_on &= _note(sender, sink, effect, result)
        if isinstance(result, (AmbiguousSendError, *_OF_THE_CONNECTION)) or result.rerun_helps:
            report.waiting += 1
        else:
            report.failed += 1
    return going_on


def _note(sender: Sender, sink: Sink, effect: Effect, error: FluxError) -> bool:
    """Write down why an effect was not written, or that nobody knows; return whether others may still be sent."""
    if isinstance(error, AmbiguousSendError):
        return sender.ambiguous(effect, str(error), look_after=sink.settles_after)
    if isinstance(error, _OF_THE_CONNECTION):
        sender.not_sent(effect, str(error))
        return False
    if error.rerun_helps:
        return sender.put_off(effect, str(error))
    return sender.refused(effect, str(error))
