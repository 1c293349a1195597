"""Finds where members of some names stand in a page of JSON records, without reading the JSON.

Reading 500 orders takes a hundred times as long as looking for the colons in their bytes. What is before each colon is
hashed and looked up: nearly all names fall out there, and the few that are left are compared byte for byte.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Letters = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.intp]
Words = npt.NDArray[np.uint64]

#: What a page begins and ends with, so that everything in it has bytes before it, none of them a blank, and behind it.
PADDING = bytes(64)

_QUOTE, _COLON, _SPACE, _BACKSLASH = ord('"'), ord(":"), ord(" "), ord("\\")
_BLANKS = b" \t\r\n"
_MOST_BLANKS = 16
#: Knuth's multiplicative hash: of four bytes, of eight.
_SHORT_FACTOR, _SHORT_SHIFT = np.uint32(2654435761), np.uint32(18)
_LONG_FACTOR, _LONG_SHIFT = np.uint64(11400714819323198485), np.uint64(50)
_SLOTS = 1 << 14
_WORD = 8
#: Bytes looked at in one go: what numpy makes of them stays in the processor's cache.
_STRIDE = 1 << 18
#: Fewer candidates than this are sooner looked at one by one.
_FEW = 64

#: A letter, digit or underscore written as `\\u0061`. Nobody writes the names of members so, but JSON allows it.
_ESCAPED = re.compile(rb"\\u00(?:3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aA])")


class NameFinder:
    """Finds every member of one of the names, and which of them it is.

    Args:
        names: the names, of at most 62 ASCII letters, digits and underscores. Their order gives them their numbers.

    """

    def __init__(self, names: Sequence[str]) -> None:
        quoted = [b'"' + name.encode() for name in names]
        longest = max(map(len, quoted), default=1)
        if longest >= len(PADDING):
            raise ValueError("a name is too long")
        self._numbers = {name[1:]: number for number, name in enumerate(quoted)}
        #: By the hash of four bytes: whether a name ends so (1), and whether a short one does with what is before it (2).
        self._ends = np.zeros(_SLOTS, np.uint8)
        #: By the hash of eight bytes: whether a name that is not short ends so.
        self._tails = np.zeros(_SLOTS, np.bool_)
        for name in quoted:
            if len(name) >= _WORD:
                self._ends[_short_hash(np.frombuffer(name[-4:], "<u4"))] |= 1
                self._tails[_long_hash(np.frombuffer(name[-_WORD:], "<u8"))] = True
            else:
                self._ends[_short_hash(np.frombuffer(_possible_ends(name), "<u4"))] |= 2
        #: How far before a closing quote each letter of a name is, and each of its words, the last ones first.
        width = -(-longest // _WORD)
        self._letters_back = np.arange(1, longest + 1)
        self._words_back = np.arange(1, width + 1) * _WORD
        #: By the length of a quoted name: which bits of its words are its own.
        self._own = _in_words([b"\xff" * n for n in range(longest + 1)], width)
        every = _in_words(quoted, width)
        keys = _key(every)
        self._order = np.argsort(keys)
        self._keys, self._every = keys[self._order], every[self._order]

    def find(self, page: bytes) -> tuple[list[int], list[int]] | None:
        """Return where the quotes stand that close one of the names, in order, and the numbers of those names.

        Args:
            page: valid JSON records, one after the other, between two `PADDING`.

        Returns:
            None when more white space is before a colon than anybody writes: names must be looked for in another way.

        """
        if not self._numbers:
            return [], []
        at = self._candidates(page)
        if at is None:
            return None
        return self._few(page, at.tolist()) if len(at) < _FEW else self._many(page, at)

    def _candidates(self, page: bytes) -> Positions | None:
        """Return where quotes stand that close one of the names, and hardly any other."""
        found = []
        letters, words, halves = np.frombuffer(page, np.uint8), _words(page, "<u8"), _words(page, "<u4")
        for start in range(len(PADDING), len(page) - len(PADDING), _STRIDE):
            stop = min(start + _STRIDE, len(page) - len(PADDING))
            at = (letters[start + 1 : stop + 1] == _COLON).nonzero()[0] + start
            before = letters[at]
            if (before <= _SPACE).any():
                back = _stepped_back(letters, at)
                if back is None:
                    return None
                at = back
            else:
                at = at[before == _QUOTE]
            ends = self._ends[_short_hash(halves[at - 4])]
            near = ends.nonzero()[0]
            at, ends = at[near], ends[near]
            found.append(at[(ends > 1) | self._tails[_long_hash(words[at - _WORD])]])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _few(self, page: bytes, candidates: list[int]) -> tuple[list[int], list[int]]:
        """Leave those candidates that are names, one by one."""
        ends, numbers = [], []
        for end in candidates:
            opening = page.rfind(b'"', 0, end)
            number = self._numbers.get(page[opening + 1 : end])
            if number is not None and page[opening - 1] != _BACKSLASH:
                ends.append(end)
                numbers.append(number)
        return ends, numbers

    def _many(self, page: bytes, at: Positions) -> tuple[list[int], list[int]]:
        """Leave those candidates that are names, all at once."""
        letters = np.frombuffer(page, np.uint8)
        length = (letters[at[:, None] - self._letters_back] == _QUOTE).argmax(1) + 1
        own = _words(page, "<u8")[at[:, None] - self._words_back] & self._own[length]
        place = np.minimum(np.searchsorted(self._keys, _key(own)), len(self._keys) - 1)
        # A backslash before the opening quote: it is a quote within a longer name.
        known = (own == self._every[place]).all(1) & (letters[at - length - 1] != _BACKSLASH)
        return at[known].tolist(), self._order[place[known]].tolist()


def has_escaped_names(page: bytes) -> bool:
    """Tell whether a page may have members whose names are written with escapes: `NameFinder` does not see those."""
    # One byte is looked for at memory's speed; most pages have no escape at all.
    return b"\\" in page and b"\\u00" in page and _ESCAPED.search(page) is not None


def _words(page: bytes, kind: str) -> npt.NDArray[Any]:
    """Return the number that begins at each position, in little-endian bytes."""
    return np.ndarray((len(page) - int(kind[-1]) + 1,), kind, page, 0, (1,))


def _in_words(names: list[bytes], width: int) -> Words:
    """Return names as rows of so many words, the last word of each first."""
    rows = b"".join(name.rjust(width * _WORD, b"\0") for name in names)
    return np.frombuffer(rows, "<u8").reshape(len(names), width)[:, ::-1]


def _key(rows: Words) -> Words:
    """Return one number for each row."""
    keys = rows[:, 0] * _LONG_FACTOR
    for column in range(1, rows.shape[1]):
        keys = (keys ^ (keys >> np.uint64(29)) ^ rows[:, column]) * _LONG_FACTOR
    return keys


def _short_hash(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    return (words * _SHORT_FACTOR) >> _SHORT_SHIFT


def _long_hash(words: Words) -> Words:
    return (words * _LONG_FACTOR) >> _LONG_SHIFT


def _stepped_back(letters: Letters, at: Positions) -> Positions | None:
    """Go back over blanks from where a colon follows; return where a quote is then. None: too many blanks."""
    for _ in range(_MOST_BLANKS):
        blank = (letters[at] <= _SPACE) & (letters[at] > 0)  # the padding ends it
        if not blank.any():
            found: Positions = at[letters[at] == _QUOTE]
            return found
        at = at - blank
    return None


def _possible_ends(quoted: bytes) -> bytes:
    """Return the last four bytes of a name with its opening quote; of a short one with all that may stand before it."""
    if len(quoted) >= 4:
        return quoted[-4:]
    openers = b"{," + _BLANKS
    anything = range(256)
    before = [bytes(b) for b in itertools.product(*[anything] * (3 - len(quoted)), openers)]
    return b"".join(b + quoted for b in before)
