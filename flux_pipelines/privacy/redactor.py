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

_BACKSLASH, _COLON, _QUOTE = b'\\:"'
_OPENING = frozenset(b"[{")
_CLOSING = frozenset(b"]}")


@dataclass(frozen=True, slots=True)
class _Treatment:
    """What becomes of a member, and inside which members; inside of any when there are none.

    `limited` is True for one that is treated only within others, or not at all: for what is inside it.
    """

    name: bytes
    pseudonym: bool
    limited: bool
    within: frozenset[bytes]
    ancestor: bool


#: Where the quote is that closes a member's name, and what becomes of the member.
_Found = tuple[int, _Treatment]


class _Around:
    """The members around a position in a record that moves forward. Where one ends is looked up when it is asked for."""

    __slots__ = ("_inside", "_page", "_stop", "begun")

    def __init__(self, page: bytes, stop: int) -> None:
        self._page, self._stop = page, stop
        #: Members that have begun before the position and whose ends are not known.
        self.begun: list[_Found] = []
        self._inside: list[tuple[int, bytes]] = []  # where each ends, the innermost last, and its name

    def has(self, names: frozenset[bytes], position: int) -> bool:
        """Tell whether the position is inside a member of one of the names."""
        if not names:
            return False
        inside = self._inside
        while inside and inside[-1][0] <= position:
            inside.pop()
        for begun, treatment in self.begun:
            value = _VALUE.match(self._page, begun + 1, self._stop)
            end = self._stop if value is None else _span(value, self._page, self._stop)[1]
            if end > position:
                inside.append((end, treatment.name))
        self.begun.clear()
        return any(name in names for _, name in inside)


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
        names = sorted(treated | ancestors)
        self._treatments = [
            _Treatment(
                name=name.encode(),
                pseudonym=name in redaction.pseudonymise and name not in redaction.remove,
                limited=name in within or name not in treated,
                within=frozenset(within.get(name, ())),
                ancestor=name in ancestors,
            )
            for name in names
        ]
        self._numbers = {name: number for number, name in enumerate(names)}
        self._finder = NameFinder(names)

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        """Return the records without what is personal; those that have nothing personal are the same objects.

        Many at once take a fraction of the time. What is not valid JSON is cut off where that shows, behind a name.
        """
        page = b"\n".join([PADDING, *records, PADDING])
        found = None if has_escaped_names(page) else self._finder.find(page)
        ends, numbers = self._read(page) if found is None else found
        answer = list(records)
        if not ends:
            return answer
        members = list(zip(ends, map(self._treatments.__getitem__, numbers), strict=True))
        at, count = 0, len(ends)
        stop = len(PADDING)
        for number, record in enumerate(records):
            start = stop + 1
            stop = start + len(record if type(record) is bytes else memoryview(record))
            first = at
            while at < count and ends[at] < stop:
                at += 1
            if at > first:
                answer[number] = self._redacted(page, start, stop, members[first:at]) or record
            if at == count:
                break
        return answer

    def one(self, record: bytes) -> bytes:
        """Return one record without what is personal."""
        return bytes(self([record])[0])

    def _read(self, page: bytes) -> tuple[list[int], list[int]]:
        """Return what the finder would, the slow way: for names that it does not see."""
        ends, numbers = [], []
        for match in _MEMBER.finditer(page, len(PADDING)):
            if match.lastindex:
                number = self._numbers.get(_text(match[1]))
                if number is not None:
                    ends.append(match.end(1) - 1)
                    numbers.append(number)
        return ends, numbers

    def _redacted(self, page: bytes, start: int, stop: int, members: Sequence[_Found]) -> bytes | None:
        """Return the record that stands between two positions of a page; None when nothing in it is personal.

        Args:
            page: the records.
            start: where the record begins.
            stop: where it ends.
            members: where the quotes are that close the names of its members that matter, and what becomes of each.

        """
        parts: list[bytes] = []
        done = start
        around: _Around | None = None  # of a member that others are treated in
        removed, pseudonyms = self._removed, self._pseudonyms
        for member in members:
            end, treatment = member
            if end < done:
                continue  # in what was removed
            if treatment.limited and (around is None or not around.has(treatment.within, end)):
                if treatment.ancestor:
                    around = around or _Around(page, stop)
                    around.begun.append(member)
                continue
            begin, after = end + 2, 0
            if page[end + 1] == _COLON and page[begin] == _QUOTE:  # a text right behind the colon, as nearly all are
                after = page.find(b'"', begin + 1, stop) + 1
                if page[after - 2] == _BACKSLASH or (treatment.pseudonym and page.find(b"\\", begin, after) > 0):
                    after = 0  # that quote does not end it, or it must be decoded
            if after:
                if treatment.pseudonym and pseudonyms is not None:
                    new = b'"' + pseudonyms.of_bytes(page[begin + 1 : after - 1]) + b'"'
                else:
                    new = removed
                if page.startswith(new, begin):
                    continue
            else:
                value = _VALUE.match(page, end + 1, stop)
                if value is None:  # not JSON: what follows cannot be told apart
                    parts.append(page[done:end] + b'":' + removed)
                    return b"".join(parts)
                begin, after = _span(value, page, stop)
                new = self._replacement(value) if treatment.pseudonym else removed
                if page[begin:after] in (new, b"null"):
                    continue
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


def _span(value: re.Match[bytes], page: bytes, stop: int) -> tuple[int, int]:
    """Return where a member's value begins and ends."""
    begin, after = value.span(value.lastindex or 0)
    if value.lastindex == _CONTAINER:
        flat = _FLAT.match(page, begin, stop)
        after = flat.end() if flat is not None else _end_of_container(page, begin, stop)
    return begin, after


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


def _text(quoted: bytes) -> str:
    """Return the text that a JSON string stands for, whatever is wrong with its encoding."""
    if b"\\" not in quoted:
        return quoted[1:-1].decode("utf-8", "surrogateescape")
    try:
        return str(json.loads(quoted.decode("utf-8", "surrogateescape"), strict=False))
    except ValueError:  # an escape that JSON does not know
        return quoted[1:-1].decode("utf-8", "surrogateescape")
