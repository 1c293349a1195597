"""Takes what is personal out of JSON records, as bytes: what is not personal stays exactly as received.

Nothing is decoded and written anew, which would change numbers (`1.10`), escapes and the order of members. A member is
recognised by its name in quotes: in valid JSON a bare quote, a name, a quote and a colon are always a member, because
quotes within texts are escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import ahocorasick_rs
import msgspec

from flux_pipelines.domain.redaction import Redaction
from flux_pipelines.privacy.pseudonyms import Pseudonyms

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


#: What becomes of a member, by its name: removed, made a pseudonym, or it depends on the members around it. And what
#: the finder finds besides names: an escape, which a name may be written with.
_REMOVE, _PSEUDONYM, _DEPENDS, _ESCAPE = range(4)


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

    @property
    def kind(self) -> int:
        return _DEPENDS if self.limited else _PSEUDONYM if self.pseudonym else _REMOVE


class _Around:
    """The members around a position that moves forward. Where one ends is looked up when it is asked for."""

    __slots__ = ("_begun", "_inside", "_page", "_since", "_stop_of", "used")

    def __init__(self, page: bytes, stop_of: Callable[[int], int]) -> None:
        self._page, self._stop_of = page, stop_of
        #: Members that have begun before the position and whose ends are not known: the end of the name, and the name.
        self._begun: list[tuple[int, bytes]] = []
        self._inside: list[tuple[int, bytes]] = []  # where each ends, the innermost last, and its name
        self._since = 0
        #: Whether the position may be inside of any.
        self.used = False

    def begin(self, position: int, name: bytes) -> None:
        """Remember that a member's name ends here."""
        self._begun.append((position, name))
        self._since = position
        self.used = True

    def has(self, names: frozenset[bytes], position: int) -> bool:
        """Tell whether the position is inside a member of one of the names."""
        if not self.used:
            return False
        stop = self._stop_of(self._since)
        if stop <= position:  # all of them are of an earlier record
            self._begun.clear()
            self._inside.clear()
            self.used = False
        if not names:
            return False
        inside = self._inside
        while inside and inside[-1][0] <= position:
            inside.pop()
        for after, name in self._begun:
            value = _VALUE.match(self._page, after, stop)
            end = stop if value is None else _span(value, self._page, stop)[1]
            if end > position:
                inside.append((end, name))
        self._begun.clear()
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
        self._pseudonym = pseudonyms.of_bytes if pseudonyms is not None else None
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
                pseudonym=pseudonyms is not None and name in redaction.pseudonymise and name not in redaction.remove,
                limited=name in within or name not in treated,
                within=frozenset(within.get(name, ())),
                ancestor=name in ancestors,
            )
            for name in names
        ]
        self._kinds = [*(treatment.kind for treatment in self._treatments), _ESCAPE]
        self._numbers = {name: number for number, name in enumerate(names)}
        # In quotes no name is a part of another one, and an escape has no quotes: what is found first is it.
        self._finder = ahocorasick_rs.BytesAhoCorasick(
            [*(b'"' + name.encode() + b'"' for name in names), b"\\u00"],
            implementation=ahocorasick_rs.Implementation.DFA,
        )

    def __call__(self, records: Sequence[Record]) -> list[Record]:
        """Return the records without what is personal; those that have nothing personal are the same objects.

        Many at once take a fraction of the time. What is not valid JSON is cut off where that shows, behind a name.
        """
        *redacted, _ = self.lines(b"\n".join([*records, b""])).split(b"\n")
        if len(redacted) != len(records):  # line breaks between the tokens of a record
            redacted = [self.one(bytes(record)) for record in records]
        return [old if memoryview(old) == new else new for old, new in zip(records, redacted, strict=True)]

    def one(self, record: bytes) -> bytes:
        """Return one record without what is personal; the same object when there is nothing personal in it."""
        page = record + b"\n"
        clean = self._redacted(page, self._finder.find_matches_as_indexes(page), one=True)
        return record if clean == page else clean[:-1]

    def lines(self, page: bytes) -> bytes:
        """Return NDJSON without what is personal: records without line breaks in them, each followed by one."""
        return self._redacted(page, self._finder.find_matches_as_indexes(page), one=False)

    def _redacted(self, page: bytes, found: Sequence[tuple[int, int, int]], *, one: bool, read: bool = False) -> bytes:
        """Return a page without what is personal.

        Args:
            page: the records, each followed by a line break.
            found: names in quotes that matter and escapes, in order: what it is, where it begins, where it ends.
            one: whether it is one record, which may have line breaks in it; else each line is one.
            read: whether names with escapes are among what was found.

        """

        def stop_of(position: int) -> int:
            """Return where the record ends that a position is in."""
            return len(page) - 1 if one else page.find(b"\n", position)

        kinds, treatments, removed, pseudonym, find = (
            self._kinds,
            self._treatments,
            self._removed,
            self._pseudonym,
            page.find,
        )
        parts: list[bytes] = []
        push = parts.append
        done = 0
        around = _Around(page, stop_of)
        for number, begin, end in found:
            if begin < done:
                continue  # in what was removed
            kind = kinds[number]
            if kind >= _DEPENDS:
                if kind == _ESCAPE:
                    if not read and _ESCAPED.match(page, begin):
                        return self._redacted(page, self._read(page, found, one=one), one=one, read=True)
                    continue
                treatment = treatments[number]
                if not treatment.ancestor and not (around.used and around.has(treatment.within, begin)):
                    continue
            letter = page[end]
            if letter != _COLON and not (letter <= _SPACE and _COLON_AFTER_BLANKS.match(page, end, stop_of(end))):
                continue  # a text of that wording
            if page[begin - 1] == _BACKSLASH and begin:
                continue  # quotes within a text
            if kind == _DEPENDS:
                if not around.has(treatment.within, begin):
                    around.begin(end, treatment.name)
                    continue
                kind = _PSEUDONYM if treatment.pseudonym else _REMOVE
            first, after = end + 1, 0
            if letter == _COLON and page[first] == _QUOTE:  # a text right behind the colon, as nearly all are
                after = find(b'"', end + 2) + 1
                text = page[end + 2 : after - 1]
                if b"\\" in text or b"\n" in text:
                    after = 0  # it must be decoded, or that quote does not end it, or ends it in another record
                elif kind == _REMOVE or pseudonym is None:
                    new = removed
                else:
                    new = b'"%b"' % pseudonym(text)
            if not after:
                stop = stop_of(end)
                value = _VALUE.match(page, end, stop)
                if value is None:  # not JSON: what follows cannot be told apart
                    parts += (page[done:end], b":", removed)
                    done = stop
                    continue
                first, after = _span(value, page, stop)
                new = removed if kind == _REMOVE else self._replacement(value)
                if page.startswith(b"null", first) and after == first + 4:
                    continue
            push(page[done:first])
            push(new)
            done = after
        if not parts:
            return page
        parts.append(page[done:])
        return b"".join(parts)

    def _read(self, page: bytes, found: Sequence[tuple[int, int, int]], *, one: bool) -> list[tuple[int, int, int]]:
        """Return what the finder has found, and names with escapes: the slow way, by reading.

        Each record by itself, so that the quotes of one that is not JSON do not hide the members of the others.
        """
        more = set(found)
        start = 0
        while start < len(page):
            stop = len(page) - 1 if one else page.index(b"\n", start)
            for match in _MEMBER.finditer(page, start, stop):
                number = self._numbers.get(_text(match[1])) if match.lastindex else None
                if number is not None:
                    more.add((number, *match.span(1)))
            start = stop + 1
        return sorted(more, key=itemgetter(1))

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
