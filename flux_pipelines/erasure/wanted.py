"""Which records hold somebody who asked to be forgotten, and what is left of such a record."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

from flux_pipelines.domain import inert
from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.privacy import Pseudonyms, Redactor, normalised
from flux_pipelines.providers.base import Erasure, Redaction

#: Shorter texts would be found in what has nothing to do with the person.
SHORTEST_TEXT = 4

_TOKEN = re.compile(
    rb'"(?P<text>[^"\\]*(?:\\.[^"\\]*)*)"(?P<member>[ \t\r\n]*:)?|(?P<number>-?\d[\d.eE+-]*)', re.DOTALL
)
#: The name of a member that holds an id (`id`, `customer_id`, `customerId`) or a phone number, up to its value.
_ID_MEMBER = re.compile(rb'(?:"id|_id|[a-z]I[dD]|(?i:phone)[A-Za-z_]*)"[ \t\r\n]*:[ \t\r\n]*$')
#: An escape in JSON: of a character that may be written plainly as well, most of them.
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_PHONE_SIGNS = r"[\s().\-/]*"
#: Between these stand the cells of a preview, and the parts of a product's id that is made of its name.
_PARTS = re.compile(r"[|\n]")
#: What stands in the place of a text that names a person, where nobody has declared a person to be.
ERASED_TEXT = "erased"
#: How much of what stands before a number is looked at for its name.
_NAME_BYTES = 64


class Wanted:
    """Finds the records of a request, and erases them.

    Args:
        erasure: whose data. Empty everywhere: all records.
        redaction: what is personal in the provider's records.
        pseudonyms: the installation's own, under which texts may be stored.
        erased: the JSON that stands for what was erased.

    Raises:
        ConfigurationError: a text or id so short that it would be found anywhere.

    """

    def __init__(
        self, erasure: Erasure, redaction: Redaction, pseudonyms: Pseudonyms, *, erased: bytes = b"null"
    ) -> None:
        self.everything = not any(erasure)
        self._pseudonyms = pseudonyms
        self._erased = erased
        self._redactor = Redactor(redaction, None, removed=erased)
        self._texts = frozenset(folded(normalised(text)) for text in erasure.texts)
        if any(len(text) < SHORTEST_TEXT for text in self._texts):
            raise ConfigurationError(f"a text to be erased must have at least {SHORTEST_TEXT} characters")
        if not all(one.strip() for one in (*erasure.customer_ids, *erasure.order_ids)):
            raise ConfigurationError("an id to be erased is empty")
        self._customers = frozenset(erasure.customer_ids)
        self._ids = frozenset({*erasure.customer_ids, *erasure.order_ids})
        spellings = {unicodedata.normalize(form, text) for text in erasure.texts for form in ("NFC", "NFD")}
        self._hashed = frozenset(pseudonyms.of(text) for text in (*erasure.texts, *spellings, *erasure.customer_ids))
        #: Texts and ids of which only the pseudonym is known.
        self._opaque = frozenset(one for one in (*erasure.texts, *erasure.customer_ids) if one.startswith("hmac:"))
        #: What names the person wherever in another text it stands: addresses, numbers of phones, names of several words.
        self._within = _anywhere(self._texts)
        # What any record of theirs holds; found in a block of records before they are looked at singly.
        self._needles = tuple({folded(needle) for needle in (*self._ids, *self._hashed, *self._texts, *erasure.texts)})

    def erased(self, records: Sequence[bytes], *, thorough: bool) -> Sequence[bytes]:
        """Return the records, those of the person without anything personal; the others are the same objects.

        Args:
            records: JSON objects.
            thorough: look at every text by itself, as personal data that was never redacted needs, of which only
                pseudonyms may be known: it takes a hundred times as long.

        """
        if self.everything:
            return [bytes(record) for record in self._redactor(records)]
        if not thorough and not self.may_be_in(b"\n".join(records)):
            return records
        answer = list(records)
        for number, record in enumerate(records):
            if (thorough or self.may_be_in(record)) and self._is_of(record):
                answer[number] = self._without_mentions(self._redactor.one(record))
        return answer

    def mentions(self, text: str) -> bool:
        """Tell whether a text that is of no record names the person: a cell of a table, or of a preview."""
        spellings = {
            text,
            inert.shown(text),
        }  # a preview's addresses and signs are written so that no markup comes of them
        parts = {part.strip().removeprefix("name:") for one in spellings for part in _PARTS.split(one)}
        return any(map(self._is_within, spellings)) or any(
            self._is_text(part) for part in parts if not part.isdecimal()
        )

    def without(self, text: str) -> str:
        """Return a text with `erased` in the place of each line that names the person."""
        return "\n".join(ERASED_TEXT if self.mentions(line) else line for line in text.split("\n"))

    def may_be_in(self, data: bytes) -> bool:
        """Tell whether JSON may name the person: quickly, and sometimes wrongly so."""
        plain = folded(_unescaped(data))
        # Only what has been made inert has these; records are many, and looked at once.
        spellings = {plain, inert.shown(plain)} if "\\" in plain or "\u2060" in plain else {plain}
        return any(needle in one for one in spellings for needle in self._needles) or any(
            map(self._is_within, spellings)
        )

    def _is_within(self, text: str) -> bool:
        return self._within is not None and self._within.search(folded(text)) is not None

    def _is_of(self, record: bytes) -> bool:
        return any(self._is_meant(record, token, self._ids) for token in _TOKEN.finditer(record))

    def _without_mentions(self, record: bytes) -> bytes:
        """Take out what still names the person, in members that nobody has declared personal. Order ids stay."""

        def instead(token: re.Match[bytes]) -> bytes:
            if not self._is_meant(record, token, self._customers):
                return token[0]
            # The name of a member must stay a text; and what is the name of an item has to be one: it is made rows of.
            if token["member"] is not None:
                return b'"erased"' + token["member"]
            is_id = token["number"] is not None or _decoded(token["text"]).rpartition("/")[2] in self._customers
            return self._erased if is_id else b'"%b"' % ERASED_TEXT.encode()

        return _TOKEN.sub(instead, record)

    def _is_meant(self, record: bytes, token: re.Match[bytes], ids: Iterable[str]) -> bool:
        """Tell whether a token is one of the ids or texts. Digits are an id only where their member says so.

        So an amount or a quantity is never taken for one, and the books stay as they are.
        """
        text = _decoded(token["text"]) if token["number"] is None else token["number"].decode()
        if text.isdecimal() or token["number"] is not None:
            before = record[max(0, token.start() - _NAME_BYTES) : token.start()]
            if _ID_MEMBER.search(before) is None:
                return False
        if text in ids or text.rpartition("/")[2] in ids:
            return True
        if len(text) < SHORTEST_TEXT:
            return False
        return self._is_text(text) or self._is_within(text)

    def _is_text(self, text: str) -> bool:
        """Tell whether all of a text is one of those that name the person, however it is written."""
        if len(text) < SHORTEST_TEXT:
            return False
        if text.startswith("hmac:"):
            return text in self._hashed
        if folded(normalised(text)) in self._texts:
            return True
        last = text.rpartition("/")[2]  # of an id as `gid://shopify/Customer/1`
        return bool(self._opaque) and not self._opaque.isdisjoint(map(self._pseudonyms.of, {text, last}))


def folded(text: str) -> str:
    """Return the one form of a text that may be written in several: composed characters, and no capitals."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _anywhere(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Return what finds folded texts within others; None when there are none that mean somebody there as well.

    A single word may be a part of what has nothing to do with the person: that is looked for as a whole text alone.
    """
    found = []
    for text in sorted(texts):
        if "@" in text:
            found.append(re.escape(text))
        elif text.isdecimal():
            found.append(rf"(?<!\d){_PHONE_SIGNS.join(text)}(?!\d)")
        elif len(words := text.split()) > 1:
            found.append(r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)")
    return re.compile("|".join(found)) if found else None


def _unescaped(data: bytes) -> str:
    """Return JSON with its escapes read, which leaves no JSON but all texts that are in it."""
    text = data.decode("utf-8", "surrogateescape")
    if "\\" not in text:
        return text
    text = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)) if escape[1] else escape[2], text)
    # Two halves of one character, each escaped.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if not text.isascii() else text


def _decoded(content: bytes) -> str:
    if b"\\" in content:
        try:
            return str(json.loads(b'"' + content + b'"', strict=False))
        except ValueError:  # an escape or encoding that JSON does not know
            pass
    return content.decode("utf-8", "surrogateescape")
