"""Page cursors as Square's are: opaque, good for the query that they came from, for a few minutes; and short pages."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.square.errors import invalid_cursor
from flux_sandbox.square.params import expect

if TYPE_CHECKING:
    from flux_sandbox.world import World

_SHORT_PAGES = 0.06  # how often a page holds less than it could


class Position(msgspec.Struct, array_like=True):
    """Where a page ended: the instant and id of its last object; `last` is where the whole list ends (milliseconds)."""

    fingerprint: bytes
    issued: float
    last: int
    at: int
    id: str


def fingerprint(*query: Any) -> bytes:
    """Return what tells one query from another."""
    return hashlib.blake2b(msgspec.json.encode(query, order="sorted"), digest_size=12).digest()


class Cursors:
    """Seals and opens cursors; keeps nothing between requests, as all of a chain's state is in its cursor."""

    def __init__(self, world: World) -> None:
        self._world = world
        # Cursors of an earlier sandbox are worthless, as they should be.
        self._key = hashlib.blake2b(f"{world.options.seed}|{world.clock()}".encode(), digest_size=32).digest()

    def seal(self, position: Position) -> str:
        """Return a cursor."""
        body = msgspec.msgpack.encode(position)
        mark = hmac.digest(self._key, body, "sha256")[:12]
        return base64.urlsafe_b64encode(mark + body).decode().rstrip("=")

    def open(self, cursor: str, query: bytes, now: float) -> Position:
        """Return where a query goes on.

        Raises:
            ApiError: the cursor was not made here, or for another query, or too long ago.

        """
        try:
            sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            mark, body = sealed[:12], sealed[12:]
            if not hmac.compare_digest(mark, hmac.digest(self._key, body, "sha256")[:12]):
                raise invalid_cursor()
            position = msgspec.msgpack.decode(body, type=Position)
        except (binascii.Error, ValueError, msgspec.DecodeError):
            raise invalid_cursor() from None
        if position.fingerprint != query or now - position.issued > self._world.options.cursor_lifetime:
            raise invalid_cursor()
        return position

    def page_size(self, limit: int, query: bytes, after: object) -> int:
        """Return how much a page holds at most: now and then less than asked for, as documented."""
        limit = self._world.options.page(limit)
        rng = Random(f"{self._world.options.seed}|{query.hex()}|{after}")  # noqa: S311
        if limit > 1 and rng.random() < _SHORT_PAGES:
            return rng.randrange(max(1, limit // 4), limit)
        return limit

    def page(
        self,
        found: list[tuple[int, str, Any]],
        query: bytes,
        cursor: Any,
        limit: int,
        *,
        descending: bool = False,
    ) -> tuple[list[Any], dict[str, str]]:
        """Return a page of what was found, and the member that leads to the next one, if there is one.

        Args:
            found: objects, each with its instant and id, in any order.
            query: the fingerprint of what is asked for.
            cursor: as asked with; nothing on the first page.
            limit: the most that the page may hold.
            descending: newest first.

        Raises:
            ApiError: the cursor is not, or no longer, good.

        """
        now = self._world.clock().timestamp()
        after = None
        if cursor:
            position = self.open(expect(cursor, str, "EXPECTED_STRING", "cursor"), query, now)
            after = (position.at, position.id)
        found.sort(key=lambda one: one[:2], reverse=descending)
        rest = [one for one in found if after is None or (one[:2] < after if descending else one[:2] > after)]
        page = rest[: self.page_size(limit, query, after)]
        if len(page) == len(rest):
            return [one for _, _, one in page], {}
        at, id_, _ = page[-1]
        return [one for _, _, one in page], {"cursor": self.seal(Position(query, now, 0, at, id_))}
