"""Finds where members of some names stand in a page of JSON records, without reading the JSON.

Reading 500 orders takes a hundred times as long as looking for the colons in their bytes. What is before each colon is
hashed and looked up: nearly all names fall out there, in numpy, and the few that are left are looked at one by one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Letters = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.intp]

#: What a page begins with, so that there are eight bytes before everything in it, none of them a blank.
PADDING = bytes(8)

_QUOTE, _COLON, _SPACE = ord('"'), ord(":"), ord(" ")
_BLANKS = b" \t\r\n"
_MOST_BLANKS = 16
#: Knuth's multiplicative hash: of the last eight bytes of a quoted name, of the last four of a short one.
_SHORT_FACTOR = 2654435761
_LONG_FACTOR = 11400714819323198485
_SLOTS = 1 << 16
#: Bytes looked at in one go: what numpy makes of them stays in the processor's cache.
_STRIDE = 1 << 18

#: A letter, digit or underscore written as `\\u0061`. Nobody writes the names of members so, but JSON allows it.
_ESCAPED = re.compile(rb"\\u00(?:3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aA])")


class NameFinder:
    """Finds candidates: every member of one of the names, and hardly any other.

    Args:
        names: the names, of ASCII letters, digits and underscores.

    """

    def __init__(self, names: Iterable[str]) -> None:
        self._short = np.zeros(_SLOTS, np.bool_)
        self._long = np.zeros(_SLOTS, np.bool_)
        self._none = True
        for name in names:
            self._none = False
            quoted = b'"' + name.encode()
            if len(quoted) >= 8:
                self._long[_long_hash(int.from_bytes(quoted[-8:], "little"))] = True
            for end in _possible_ends(quoted) if len(quoted) < 8 else ():
                self._short[_short_hash(int.from_bytes(end, "little"))] = True

    def ends(self, page: bytes) -> Sequence[int] | None:
        """Return the positions of the closing quotes of candidates, in order, in a page that begins with `PADDING`.

        The page is valid JSON records, one after the other. None when more white space is before a colon than anybody
        writes: then names must be looked for in another way.
        """
        if self._none:
            return ()
        letters = np.frombuffer(page, np.uint8)
        #: The eight bytes that begin at each position.
        words = np.ndarray((max(0, len(page) - 7),), np.dtype("<u8"), page, 0, (1,))
        found: list[int] = []
        for start in range(len(PADDING), len(page) - 1, _STRIDE):
            stop = min(start + _STRIDE, len(page) - 1)
            before, colon = letters[start:stop], letters[start + 1 : stop + 1] == _COLON
            if ((before <= _SPACE) & colon).any():
                back = _stepped_back(letters, np.flatnonzero(colon) + start)
                if back is None:
                    return None
                at = back
            else:
                at = np.flatnonzero((before == _QUOTE) & colon) + start
            word = words[at - 8]
            hit = self._long[(word * np.uint64(_LONG_FACTOR)) >> np.uint64(48)]
            hit |= self._short[((word >> np.uint64(32)).astype(np.uint32) * np.uint32(_SHORT_FACTOR)) >> np.uint32(16)]
            found += at[hit].tolist()
        return found


def _short_hash(number: int) -> int:
    return ((number * _SHORT_FACTOR) & 0xFFFFFFFF) >> 16


def _long_hash(number: int) -> int:
    return ((number * _LONG_FACTOR) & 0xFFFFFFFFFFFFFFFF) >> 48


def has_escaped_names(page: bytes) -> bool:
    """Tell whether a page may have members whose names are written with escapes: `NameFinder` does not see those."""
    # One byte is looked for at memory's speed; most pages have no escape at all.
    return b"\\" in page and b"\\u00" in page and _ESCAPED.search(page) is not None


def _stepped_back(letters: Letters, at: Positions) -> Positions | None:
    """Go back over blanks from where a colon follows; return where a quote is then. None: too many blanks."""
    for _ in range(_MOST_BLANKS):
        blank = (letters[at] <= _SPACE) & (letters[at] > 0)  # the padding ends it
        if not blank.any():
            found: Positions = at[letters[at] == _QUOTE]
            return found
        at = at - blank
    return None


def _possible_ends(quoted: bytes) -> Iterable[bytes]:
    """Yield the last four bytes of a name with its opening quote; of a short one with all that may stand before it."""
    if len(quoted) >= 4:
        return (quoted[-4:],)
    openers = b"{," + _BLANKS
    anything = range(256)
    before = [bytes(b) for b in itertools.product(*[anything] * (3 - len(quoted)), openers)]
    return [b + quoted for b in before]
