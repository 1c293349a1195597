"""Which records hold somebody who asked to be forgotten, and what is left of such a record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

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
        self._texts = frozenset(normalised(text) for text in erasure.texts)
        if any(len(text) < SHORTEST_TEXT for text in self._texts):
            raise ConfigurationError(f"a text to be erased must have at least {SHORTEST_TEXT} characters")
        if not all(one.strip() for one in (*erasure.customer_ids, *erasure.order_ids)):
            raise ConfigurationError("an id to be erased is empty")
        self._customers = frozenset(erasure.customer_ids)
        self._ids = frozenset({*erasure.customer_ids, *erasure.order_ids})
        self._hashed = frozenset(pseudonyms.of(text) for text in (*erasure.texts, *erasure.customer_ids))
        #: Texts of which only the pseudonym is known.
        self._opaque = frozenset(text for text in self._texts if text.startswith("hmac:"))
        #: Texts that name the person wherever in another text they stand.
        self._addresses = tuple(text for text in self._texts if "@" in text)
        # What any record of theirs holds, in lower case; found in a block of records before they are looked at singly.
        self._needles = tuple(
            {needle.lower().encode() for needle in (*self._ids, *self._hashed, *self._texts, *erasure.texts)}
        )

    def erased(self, records: Sequence[bytes], *, thorough: bool) -> Sequence[bytes]:
        """Return the records, those of the person without anything personal; the others are the same objects.

        Args:
            records: JSON objects.
            thorough: look also for texts that are written in another form, as personal data that was never redacted
                may be: it takes a hundred times as long.

        """
        if self.everything:
            return [bytes(record) for record in self._redactor(records)]
        if not thorough and not self._may_be_in(b"\n".join(records)):
            return records
        answer = list(records)
        for number, record in enumerate(records):
            if (thorough or self._may_be_in(record)) and self._is_of(record):
                answer[number] = self._without_mentions(self._redactor.one(record))
        return answer

    def _may_be_in(self, data: bytes) -> bool:
        lower = data.lower()
        return any(needle in lower for needle in self._needles)

    def _is_of(self, record: bytes) -> bool:
        return any(self._is_meant(record, token, self._ids) for token in _TOKEN.finditer(record))

    def _without_mentions(self, record: bytes) -> bytes:
        """Take out what still names the person, in members that nobody has declared personal. Order ids stay."""

        def instead(token: re.Match[bytes]) -> bytes:
            if not self._is_meant(record, token, self._customers):
                return token[0]
            # The name of a member must stay a text.
            return self._erased if token["member"] is None else b'"erased"' + token["member"]

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
        if text.startswith("hmac:"):
            return text in self._hashed
        plain = normalised(text)
        if plain in self._texts or any(address in plain.lower() for address in self._addresses):
            return True
        return bool(self._opaque) and self._pseudonyms.of(plain) in self._opaque


def _decoded(content: bytes) -> str:
    if b"\\" in content:
        try:
            return str(json.loads(b'"' + content + b'"', strict=False))
        except ValueError:  # an escape or encoding that JSON does not know
            pass
    return content.decode("utf-8", "surrogateescape")
