"""Takes what is personal out of JSON records, as bytes: what is not personal stays exactly as received.

Nothing is decoded and written anew, which would change numbers (`1.10`), escapes and the order of members. A member is
recognised by its name in quotes: in valid JSON a bare quote, a name, a quote and a colon are always a member, because
quotes within texts are escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import msgspec

from flux_pipelines.privacy.names import PADDING, NameFinder, has_escaped_names
from flux_pipelines.privacy.pseudonyms import Pseudonyms
from flux_pipelines.providers.base import Redaction

Record = bytes | msgspec.Raw

_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_VALUE = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?:(" + _TEXT + rb")|([\[{])|([^\s,\]}\"\[{]+))", re.DOTALL)
_CONTAINER = 2
#: An object or list with nothing but texts, numbers and the like in it: most are so.
_FLAT = re.compile(rb'[\[{][^"\[\]{}]*(?:' + _TEXT + rb'[^"\[\]{}]*)*[\]}]', re.DOTALL)
_TOKEN = re.compile(_TEXT + rb"|[\[\]{}]", re.DOTALL)
_MEMBER = re.compile(rb"(" + _TEXT + rb")[ \t\r\n]*:|" + _TEXT, re.DOTALL)

_BACKSLASH = ord("\\")
_OPENING = frozenset(b"[{")
_CLOSING = frozenset(b"]}")


@dataclass(frozen=True, slots=True)
class _Treatment:
    """What becomes of a member, and inside which members; inside of any when there are none.

    `treated` is False for one that matters only for what is inside it.
    """

    treated: bool
    pseudonym: bool
    within: frozenset[bytes]
    ancestor: bool


class Redactor:
    """Applies a provider's declaration. Safe to use from threads. Applied twice, it gives the same bytes.

    Args:
        redaction: what is personal, by the names of members.
        pseudonyms: makes the pseudonyms; None removes what would get one.
        removed: the JSON that stands in the place of what was removed.

    """

    def __init__(self, redaction: Redaction, pseudonyms: Pseudonyms | None, *, removed: bytes = b"null") -> None:
        self._pseudonyms = pseudonyms
        self._removed = removed
        within: dict[str, set[bytes]] = {}
        for name, ancestor in redaction.within:
            within.setdefault(name, set()).add(ancestor.encode())
        ancestors = {ancestor for _, ancestor in redaction.within}
        treated = redaction.remove | redaction.pseudonymise | within.keys()
        self._treatments = {
            name.encode(): _Treatment(
                treated=name in treated,
                pseudonym=name in redaction.pseudonymise and name not in redaction.remove,
                within=frozenset(within.get(name, ())),
                ancestor=name in ancestors,
            )
            for name in treated | ancestors
        }
        self._finder = NameFinder(treated | ancestors)

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        """Return the records without what is personal; those that have nothing personal are the same objects.

        Many at once take a fraction of the time. What is not valid JSON is cut off where that shows, behind a name.
        """
        page = b"\n".join([PADDING, *records])
        ends = None if has_escaped_names(page) else self._finder.ends(page)
        if ends is None:
            ends = _all_members(page)
        answer = list(records)
        if not ends:
            return answer
        bounds = list(accumulate([len(PADDING) + 1, *[len(memoryview(record)) + 1 for record in records]]))
        at, count = 0, len(ends)
        for number, record in enumerate(records):
            stop = bounds[number + 1] - 1
            first = at
            while at < count and ends[at] < stop:
                at += 1
            if at > first:
                answer[number] = self._redacted(page, bounds[number], stop, ends[first:at]) or record
            if at == count:
                break
        return answer

    def one(self, record: bytes) -> bytes:
        """Return one record without what is personal."""
        return bytes(self([record])[0])

    def _redacted(self, page: bytes, start: int, stop: int, ends: Sequence[int]) -> bytes | None:
        """Return the record that stands between two positions of a page; None when nothing in it is personal."""
        parts: list[bytes] = []
        done = start
        inside: list[tuple[int, bytes]] = []  # the ancestors around the present position: where each ends, its name
        treatments, removed = self._treatments, self._removed
        for end in ends:
            if end < done:
                continue  # in what was removed
            opening = page.rfind(b'"', start, end)
            name = page[opening + 1 : end]
            treatment = treatments.get(name)
            if treatment is None:
                if b"\\" not in name:
                    continue
                treatment = treatments.get(name := _text(b'"' + name + b'"').encode("utf-8", "replace"))
                if treatment is None:
                    continue
            if page[opening - 1] == _BACKSLASH:
                continue  # a longer name, with a quote in it
            while inside and inside[-1][0] <= end:
                inside.pop()
            applies = treatment.treated
            if applies and treatment.within:
                applies = any(around in treatment.within for _, around in inside)
            if not applies and not treatment.ancestor:
                continue
            value = _VALUE.match(page, end + 1, stop)
            if value is None:  # not JSON: what follows cannot be told apart
                parts.append(page[done:end] + b'":' + removed)
                return b"".join(parts)
            kind = value.lastindex or 0
            begin, after = value.span(kind)
            if kind == _CONTAINER:
                flat = _FLAT.match(page, begin, stop)
                after = flat.end() if flat is not None else _end_of_container(page, begin, stop)
                if not applies:
                    inside.append((after, name))
            if not applies:
                continue
            new = self._replacement(value) if treatment.pseudonym else removed
            old = page[begin:after]
            if old != new and old != b"null":
                parts += (page[done:begin], new)
                done = after
        if not parts:
            return None
        parts.append(page[done:stop])
        return b"".join(parts)

    def _replacement(self, value: re.Match[bytes]) -> bytes:
        """Return what stands for a value that gets a pseudonym."""
        text, container, scalar = value.groups()
        if scalar in (b"null", b"true", b"false"):
            return bytes(scalar)
        if container is not None or self._pseudonyms is None:
            return self._removed
        plain = scalar.decode("utf-8", "surrogateescape") if text is None else _text(text)
        return b'"' + self._pseudonyms.of(plain).encode() + b'"'


def _end_of_container(page: bytes, begin: int, stop: int) -> int:
    """Return where the object or list that begins here ends; where the record does if it does not end."""
    depth = 0
    for token in _TOKEN.finditer(page, begin, stop):
        letter = page[token.start()]
        if letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
            if depth == 0:
                return token.end()
    return stop


def _all_members(page: bytes) -> list[int]:
    """Return the closing quote of every member of a page: the slow way, for what the finder does not see."""
    return [match.end(1) - 1 for match in _MEMBER.finditer(page, len(PADDING)) if match.lastindex]


def _text(quoted: bytes) -> str:
    """Return the text that a JSON string stands for, whatever is wrong with its encoding."""
    if b"\\" not in quoted:
        return quoted[1:-1].decode("utf-8", "surrogateescape")
    try:
        return str(json.loads(quoted.decode("utf-8", "surrogateescape"), strict=False))
    except ValueError:  # an escape that JSON does not know
        return quoted[1:-1].decode("utf-8", "surrogateescape")
