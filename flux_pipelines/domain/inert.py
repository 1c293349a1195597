"""Text of others made inert: an item name, a note, a provider's error, as something to read and nothing else.

Whoever can name an item at a till writes into pages that an operator opens. What is shown of it is its letters: it begins
no line, moves no cursor, turns no text around, and is neither markup nor a link.
"""

from __future__ import annotations

import re
import unicodedata

#: Zero width joiner and non-joiner: emoji, and the spelling of Persian and of several Indian languages, need them.
_JOINERS = "\u200c\u200d"
_BREAKS = "\t\n\v\f\r\x85\u2028\u2029"
#: Controls, formats (among them those that turn the direction of what follows), halves of surrogates, separators of lines.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: What means something inside a line of CommonMark and its tables; a backslash before it takes the meaning away.
#: An underscore within a word means nothing.
_MARKUP = re.compile(r"[\\`*\[\]<>&|~!]|(?<![^\W_])_|_(?![^\W_])")
#: Where GitHub's Markdown, which Dagster's UI reads, makes links of bare text. It looks for them after backslashes are gone.
_LINKS = re.compile(r"www(?=\.)|:(?=//)|@", re.IGNORECASE)
#: Takes no room, breaks no line, and is no part of an address.
_WORD_JOINER = "\u2060"
_WRITTEN = re.compile(rf"\\(?P<char>[\\`*\[\]<>&|~!_])|{_WORD_JOINER}")


def plain(text: str) -> str:
    """Return a text of others as one line that can be seen: line breaks and tabs are spaces, what is hidden is left out."""
    if text.isprintable():
        return text
    return "".join(
        " " if char in _BREAKS else char
        for char in text
        if char in _BREAKS or char in _JOINERS or unicodedata.category(char) not in _HIDDEN
    )


def markdown(text: str) -> str:
    """Return the Markdown that shows a text of others as it is, inside a line or a cell: no markup, picture, HTML or link."""
    return _MARKUP.sub(r"\\\g<0>", _LINKS.sub(rf"\g<0>{_WORD_JOINER}", plain(text)))


def shown(written: str) -> str:
    """Return the text that `markdown` was given, as far as it is to be seen: for whoever searches what was written."""
    return _WRITTEN.sub(r"\g<char>", written)
