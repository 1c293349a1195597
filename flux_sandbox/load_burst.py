"""A rush of business: sales, edits and refunds of them, and a burst of webhooks about it, duplicated and shuffled on request.

The world changes in small steps between which other requests are answered; the webhooks go out together at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from random import Random
from typing import Any

from flux_pipelines.domain.errors import ConfigurationError
from flux_sandbox.answers import Body, number, text
from flux_sandbox.deliveries import MOST_WAITING, Delivery
from flux_sandbox.model import Location, Sale
from flux_sandbox.world import World

MOST_EVENTS = 50_000
_STEP = 25  # changes of the world between two answers to others
_TENDERS = ("CARD", "CARD", "CASH", "WALLET", "OTHER")
#: Of the changes: how many are edits, and how many refunds, of a sale of this storm.
_EDITS, _REFUNDS = 0.15, 0.08
_OFFLINE_HOURS = 72.0


class LoadBurst:
    """One storm, as a request body asks for it.

    Args:
        world: where it happens.
        told: the merchants whose events somebody is told of.
        body: `merchant` (default: every one), `count` events, `duplicates` (a share), `shuffle`, `rate` events a second
            (default: as fast as they can be delivered), `late` (the share of sales that were rung up offline, up to 72
            hours ago).

    Raises:
        ConfigurationError: the body asks for what cannot be done, or nobody would be told.

    """

    def __init__(self, world: World, body: Body, told: Collection[str]) -> None:
        self._world = world
        name = text(body, "merchant")
        merchants = [world.merchant(name)] if name else [world.merchants[id_] for id_ in sorted(told)]
        if not told or any(merchant.id not in told for merchant in merchants):
            raise ConfigurationError(
                "nobody would be told of what happens: no webhook subscription, or no merchant has authorised the app",
                next_step="Connect a merchant and subscribe with POST /sandbox/webhooks; `flux up --sandbox` does.",
            )
        self._locations = [one for merchant in merchants for one in merchant.locations if one.active]
        self._count = int(number(body, "count", 1000, 1, MOST_EVENTS))
        self._duplicates = number(body, "duplicates", 0.0, 0.0, 1.0)
        self._rate = number(body, "rate", 0.0, 0.0)
        self._late = number(body, "late", 0.0, 0.0, 1.0)
        self._shuffle = body.get("shuffle") is True
        self._random = Random(f"{world.options.seed}|storm|{len(world.sales)}")  # noqa: S311
        self._open: list[Sale] = []  # sales of this storm that nobody has given back
        self._made = {"sales": 0, "edits": 0, "refunds": 0}

    async def run(self) -> dict[str, Any]:
        """Let it happen; return what it came to.

        Raises:
            ConfigurationError: too much waits already, or the app may not know of sales.

        """
        self._world.outbox.room(min(MOST_WAITING, round(self._count * (1 + self._duplicates))))
        deliveries: list[Delivery] = []
        while len(deliveries) < self._count:
            before = len(deliveries)
            with self._world.outbox.collect() as told:
                for _ in range(_STEP):
                    self._change()
                    if before + len(told) >= self._count:
                        break
            deliveries += told
            if not told:
                raise ConfigurationError(
                    "nobody is told of the sales that were made: the scope or the event types for it are missing",
                    next_step="Connect the merchant with PAYMENTS_READ, and subscribe to payment.created.",
                )
            await asyncio.sleep(0)
        copies = self._send(deliveries)
        return {**self._made, "webhooks": len(deliveries), "deliveries": len(deliveries) + copies}

    def _change(self) -> None:
        draw, world, random = self._random.random(), self._world, self._random
        if self._open and draw < _EDITS:
            world.edit(random.choice(self._open).id, add_units=random.randrange(2))
            self._made["edits"] += 1
        elif self._open and draw < _EDITS + _REFUNDS:
            world.refund(self._open.pop(random.randrange(len(self._open))).id)
            self._made["refunds"] += 1
        else:
            self._open.append(self._sell(random.choice(self._locations)))
            self._made["sales"] += 1

    def _sell(self, location: Location) -> Sale:
        random = self._random
        items = [item for item in self._world.merchants[location.merchant_id].items if not item.deleted]
        goods = [(random.choice(items), random.randrange(1, 4)) for _ in range(random.randrange(1, 5))]
        late = random.random() < self._late
        created = self._world.clock() - timedelta(hours=random.uniform(0, _OFFLINE_HOURS)) if late else None
        return self._world.sell(location.id, created=created, goods=goods, paid_by=random.choice(_TENDERS))

    def _send(self, deliveries: Sequence[Delivery]) -> int:
        """Hand everything to the post; return how many are second copies."""
        copied = self._random.sample(deliveries, round(len(deliveries) * self._duplicates))
        every = [(one, False) for one in deliveries] + [(one.copy(), True) for one in copied]
        if self._shuffle:
            self._random.shuffle(every)
        now = time.monotonic()
        for i, (delivery, duplicate) in enumerate(every):
            self._world.outbox.put(delivery, now + (i / self._rate if self._rate else 0.0), duplicate=duplicate)
        self._world.outbox.arrived()
        return len(copied)
