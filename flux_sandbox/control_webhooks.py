"""The sandbox's own endpoints about webhooks: who is told, how well the post works, what became of it, and storms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flux_pipelines.domain.errors import ConfigurationError, FluxError
from flux_sandbox.answers import Body, actor, body_of, json_answer, needed, number, reader, text, texts
from flux_sandbox.deliverer import MOST_CONCURRENT
from flux_sandbox.load_burst import LoadBurst
from flux_sandbox.model import Merchant
from flux_sandbox.provider import TellingSandbox
from flux_sandbox.world import World


class WebhookControl:
    """Answers /sandbox/webhooks and /sandbox/storm."""

    def __init__(self, world: World, providers: Sequence[object]) -> None:
        self._world = world
        self._telling = [provider for provider in providers if isinstance(provider, TellingSandbox)]

    @property
    def routes(self) -> list[Route]:
        """The paths."""
        return [
            Route("/sandbox/webhooks", reader(self._status), methods=["GET"]),
            Route("/sandbox/webhooks", actor(self._change), methods=["POST"]),
            Route("/sandbox/webhooks/acknowledged", reader(self._acknowledged), methods=["GET"]),
            Route("/sandbox/webhooks/clear", actor(self._clear), methods=["POST"]),
            Route("/sandbox/webhooks/emit", actor(self._emit), methods=["POST"]),
            Route("/sandbox/storm", self._storm, methods=["POST"]),
        ]

    def apps(self, url: str) -> dict[str, Mapping[str, Any]]:
        """Return what an app is registered with, by provider."""
        return {provider.name: provider.app(url) for provider in self._telling}

    def _of(self, body: Body, merchant: Merchant | None = None) -> list[TellingSandbox]:
        wanted = text(body, "provider") or (merchant.provider if merchant else None)
        found = [provider for provider in self._telling if wanted in (None, provider.name)]
        if not found:
            raise ConfigurationError(f"the sandbox has no provider {wanted!r} with webhooks")
        return found

    def _told(self) -> set[str]:
        """Return the merchants whose events somebody is told of."""
        telling = [provider for provider in self._telling if provider.webhooks.described()]
        return set().union(*(provider.authorised() for provider in telling))

    def _status(self, _: Request) -> Any:
        subscriptions = [
            {"provider": provider.name, **one} for provider in self._telling for one in provider.webhooks.described()
        ]
        return {"subscriptions": subscriptions, **self._world.outbox.snapshot()}

    def _change(self, body: Body) -> Any:
        """Set conditions and, with a `url`, a subscription; what is not named stays as it is."""
        changes: dict[str, Any] = {}
        for name, low, high in (
            ("duplicates", 0.0, 1.0),
            ("disorder", 0.0, 1.0),
            ("retry_factor", 0.0, 1000.0),
            ("timeout", 0.01, 600.0),
        ):
            if name in body:
                changes[name] = number(body, name, 0.0, low, high)
        if "concurrency" in body:
            changes["concurrency"] = int(number(body, "concurrency", 1, 1, MOST_CONCURRENT))
        if "delay" in body:
            changes["delay"] = _span(body["delay"])
        answer: Body = {}
        if url := text(body, "url"):
            first = self._of(body)[0]
            key, kinds = text(body, "signature_key"), texts(body, "event_types")
            answer = {"provider": first.name, "subscription": first.webhooks.subscribe(url, key, kinds)}
        self._world.outbox.change(**changes)
        return {**answer, "conditions": self._world.outbox.snapshot()["conditions"]}

    def _acknowledged(self, _: Request) -> Any:
        """List the events that a receiver took, and how often: what it has to have."""
        return {"acknowledged": self._world.outbox.acknowledgements()}

    def _clear(self, body: Body) -> Any:
        """Forget what waits and what was counted; with `subscriptions`, end those too."""
        self._world.outbox.clear()
        if body.get("subscriptions") is True:
            for provider in self._of(body):
                provider.webhooks.clear()
        return {"cleared": True}

    def _emit(self, body: Body) -> Any:
        merchant = self._world.merchant(needed(body, "merchant"))
        before = self._world.outbox.counts["events"]
        for provider in self._of(body, merchant):
            provider.webhooks.emit(merchant, needed(body, "type"))
        return {"webhooks": self._world.outbox.counts["events"] - before}

    async def _storm(self, request: Request) -> Response:
        try:
            storm = LoadBurst(self._world, await body_of(request), self._told())
            return json_answer(await storm.run())
        except FluxError as error:
            return json_answer({"error": str(error)}, 400)


def _span(value: Any) -> tuple[float, float]:
    good = isinstance(value, list) and len(value) == 2 and all(type(one) in (int, float) for one in value)
    if not good or not 0 <= value[0] <= value[1] <= 3600:
        raise ConfigurationError("`delay` must be the fewest and the most seconds, [0, 5] for example")
    return float(value[0]), float(value[1])
