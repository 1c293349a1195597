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
from operator import itemgetter

import ahocorasick_rs
import msgspec

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
_COLON_AFTER_BLANKS = re.compile(rb"[ \t\r\n]+:")
#: A letter, digit or underscore written as `\\u0061`. Nobody writes the names of members so, but JSON allows it.
_ESCAPED = re.compile(rb"\\u00(?:3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aA])")

_BACKSLASH, _COLON, _QUOTE, _SPACE = b'\\:" '
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
        # In quotes no name is a part of another one, so what is found first is it.
        self._finder = ahocorasick_rs.BytesAhoCorasick(
            [b'"' + name.encode() + b'"' for name in names], implementation=ahocorasick_rs.Implementation.DFA
        )

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        """Return the records without what is personal; those that have nothing personal are the same objects.

        Many at once take a fraction of the time. What is not valid JSON is cut off where that shows, behind a name.
        """
        answer = list(records)
        page = b"\n".join([*records, b""])
        found = self._finder.find_matches_as_indexes(page)
        if b"\\u00" in page and _ESCAPED.search(page) is not None:
            found = sorted({*found, *self._read(page, answer)}, key=itemgetter(1))
        treatments = self._treatments
        number, start, stop, nested = -1, 0, -1, False
        members: list[_Found] = []
        for name, begin, after in found:
            if begin > stop:  # of a later record
                if members:
                    answer[number] = self._redacted(page, start, stop, members) or answer[number]
                    members, nested = [], False
                while begin > stop:
                    number += 1
                    start = stop + 1
                    stop = start + len(memoryview(answer[number]))
            treatment = treatments[name]
            if treatment.limited and not (nested or treatment.ancestor):
                continue  # treated within others, none of which has begun
            letter = page[after]
            if letter != _COLON and not (letter <= _SPACE and _COLON_AFTER_BLANKS.match(page, after, stop)):
                continue  # a text of that wording
            if page[begin - 1] == _BACKSLASH:
                continue  # quotes within a text
            nested = nested or treatment.ancestor
            members.append((after - 1, treatment))
        if members:
            answer[number] = self._redacted(page, start, stop, members) or answer[number]
        return answer

    def one(self, record: bytes) -> bytes:
        """Return one record without what is personal."""
        return bytes(self([record])[0])

    def _read(self, page: bytes, records: Sequence[Record]) -> list[tuple[int, int, int]]:
        """Return what the finder would, and names with escapes: the slow way, by reading.

        Each record by itself, so that the quotes of one that is not JSON do not hide the members of the others.
        """
        found = []
        stop = -1
        for record in records:
            start, stop = stop + 1, stop + 1 + len(memoryview(record))
            for match in _MEMBER.finditer(page, start, stop):
                number = self._numbers.get(_text(match[1])) if match.lastindex else None
                if number is not None:
                    found.append((number, *match.span(1)))
        return found

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
