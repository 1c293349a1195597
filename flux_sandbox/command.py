"""`flux sandbox`: serve the sandbox; `flux sandbox emit`: make something happen in one that is running."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import typer

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.listening import SANDBOX_PORT
from flux_sandbox.options import SandboxOptions

app = typer.Typer()
emit = typer.Typer(
    help="Make something happen in a running sandbox, so that its providers tell their apps by webhook.",
    no_args_is_help=True,
)
app.add_typer(emit, name="emit")

Url = Annotated[str, typer.Option(metavar="SANDBOX", help="Where the sandbox answers.")]
Merchant = Annotated[
    str | None, typer.Option(help="The merchant, by id, handle or name; default: the first that has authorised.")
]
OrderId = Annotated[str | None, typer.Argument(metavar="[ORDER]", help="The order's id at the provider.")]
URL = f"http://127.0.0.1:{SANDBOX_PORT}"
_TIMEOUT = 120.0


@app.callback(invoke_without_command=True)
def sandbox(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port to answer on.")] = SANDBOX_PORT,
    host: Annotated[
        str, typer.Option(help="Address to answer on; only this machine unless told otherwise.")
    ] = "127.0.0.1",
    seed: Annotated[int, typer.Option(help="Another seed makes another world.")] = 1,
    orders: Annotated[Path | None, typer.Option(metavar="DIR", help="Replay the real orders in this folder.")] = None,
    faults: Annotated[
        str, typer.Option(metavar="NAME=SHARE,...", help="Faults to inject, for example error500=0.05.")
    ] = "",
    token_lifetime: Annotated[float, typer.Option(metavar="SECONDS", help="Life of access tokens.")] = 30 * 86_400.0,
    cursor_lifetime: Annotated[float, typer.Option(metavar="SECONDS", help="Life of paging cursors.")] = 300.0,
    rate_limit: Annotated[int, typer.Option(help="Requests a minute and location before it answers 429.")] = 500,
    refresh_grace: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a refresh token that was rotated away still works.")
    ] = 0.0,
) -> None:
    """Serve every provider's wire protocol over one seeded world, or over real order data."""
    if context.invoked_subcommand is not None:
        return
    from flux_sandbox.server import serve

    options = SandboxOptions(
        seed=seed,
        orders=orders,
        faults=faults,
        token_lifetime=token_lifetime,
        cursor_lifetime=cursor_lifetime,
        rate_limit=rate_limit,
        refresh_grace=refresh_grace,
    )
    serve(
        options,
        host=host,
        port=port,
        ready=lambda url, _: typer.echo(f"The sandbox answers at {url} (Ctrl+C to stop)."),
    )


class _Sandbox:
    """A running sandbox's own endpoints. Not a provider's, so the transport, with its home and limits, is not needed."""

    def __init__(self, url: str, merchant: str | None = None) -> None:
        self._url = url.rstrip("/")
        self.merchant = merchant
        self._before = self.get("webhooks")["events"]
        known = self.get("merchants")
        if merchant is None:
            if not known["authorised"]:
                raise ConfigurationError(
                    "no merchant of this sandbox has authorised the app, so nobody would be told",
                    next_step="Connect one first: `flux connections add`, or the gateway's connections page.",
                )
            self.merchant = known["authorised"][0]

    def get(self, what: str, **query: str) -> Any:
        return self._ask("GET", f"/sandbox/{what}" + (f"?{urlencode(query)}" if query else ""))

    def post(self, what: str, **body: Any) -> Any:
        return self._ask("POST", f"/sandbox/{what}", {name: value for name, value in body.items() if value is not None})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        parts = urlsplit(self._url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        try:
            connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT)
            try:
                connection.request(method, parts.path + path, json.dumps(body) if body is not None else None)
                answer = connection.getresponse()
                status, content = answer.status, json.loads(answer.read())
            finally:
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as problem:
            raise ConfigurationError(
                f"no sandbox answers at {self._url}", next_step="Start one with `flux sandbox`, or give its --url."
            ) from problem
        if status != 200:
            raise ConfigurationError(str(content.get("error", f"the sandbox answered {status}")))
        return content

    def newest(self, state: str = "COMPLETED") -> str:
        found = self.get("orders", merchant=self.merchant or "", state=state)["orders"]
        # Of what is open, what nobody has paid anything of.
        good = (one for one in found if not one["returns"] and not (state == "OPEN" and one["paid"]))
        order = next(good, None)
        if order is None:
            raise ConfigurationError(
                f"this merchant has no recent order that is {state}", next_step="Name one, or another --merchant."
            )
        return str(order["order_id"])

    def told(self, what: str) -> None:
        """Say what happened, and to how many webhooks it led; none at all is not what was asked for."""
        count = self.get("webhooks")["events"] - self._before
        if not count:
            raise ConfigurationError(
                f"{what}, but no webhook was sent",
                next_step="Subscribe with `flux up --sandbox` or POST /sandbox/webhooks, and connect the merchant.",
            )
        typer.echo(f"{what}: {count} webhook{'s' if count != 1 else ''}.")


@emit.command()
def sale(
    merchant: Merchant = None,
    location: Annotated[str | None, typer.Option(help="The location's id; default: the merchant's first.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    online: Annotated[bool, typer.Option("--online", help="Ordered through the API, not at the counter.")] = False,
    hours_ago: Annotated[float | None, typer.Option(min=0, help="Rung up offline so long ago; it arrives now.")] = None,
    url: Url = URL,
) -> None:
    """Ring up a sale now."""
    there = _Sandbox(url, merchant)
    if location is None:
        known = there.get("merchants")["merchants"]
        mine = next((m for m in known if there.merchant in (m["id"], m["handle"], m["name"])), None)
        if mine is None:
            raise ConfigurationError(f"the sandbox has no merchant {there.merchant!r}")
        location = mine["locations"][0]["id"]
    made = []
    for _ in range(count):
        if hours_ago is not None:
            made.append(there.post("orders/late", location_id=location, hours=hours_ago))
        else:
            made.append(there.post("orders/sell", location_id=location, online=online))
    there.told(f"Sold {made[0]['order_id']}" if count == 1 else f"Sold {count} orders")


@emit.command()
def edit(
    order: OrderId = None,
    merchant: Merchant = None,
    add_units: Annotated[int, typer.Option(min=0, help="So many more of its first line; 0 changes its name only.")] = 1,
    url: Url = URL,
) -> None:
    """Change an order; by default the merchant's newest sale."""
    there = _Sandbox(url, merchant)
    found = there.post("orders/edit", order_id=order or there.newest(), add_units=add_units)
    there.told(f"Changed {found['order_id']}")


@emit.command()
def refund(order: OrderId = None, merchant: Merchant = None, url: Url = URL) -> None:
    """Take a whole order back; by default the merchant's newest sale."""
    there = _Sandbox(url, merchant)
    source = order or there.newest()
    found = there.post("orders/refund", order_id=source)
    there.told(f"Refunded {source} with {found['order_id']}")


@emit.command()
def complete(order: OrderId = None, merchant: Merchant = None, url: Url = URL) -> None:
    """Pay an open order; by default the merchant's newest one."""
    there = _Sandbox(url, merchant)
    there.told(f"Paid {there.post('orders/complete', order_id=order or there.newest('OPEN'))['order_id']}")


@emit.command()
def cancel(order: OrderId = None, merchant: Merchant = None, url: Url = URL) -> None:
    """Cancel an open order; by default the merchant's newest one."""
    there = _Sandbox(url, merchant)
    there.told(f"Cancelled {there.post('orders/cancel', order_id=order or there.newest('OPEN'))['order_id']}")


@emit.command()
def revoke(merchant: Merchant = None, url: Url = URL) -> None:
    """Let a merchant take back everything it has granted."""
    there = _Sandbox(url, merchant)
    ended = there.post("tokens/revoke", merchant=there.merchant)["revoked"]
    there.told(f"Revoked {ended} access token{'s' if ended != 1 else ''} of {there.merchant}")


@emit.command()
def erase(
    customer: Annotated[
        str | None, typer.Argument(metavar="[CUSTOMER]", help="By id or e-mail address; default: one with an order.")
    ] = None,
    merchant: Merchant = None,
    url: Url = URL,
) -> None:
    """Let a customer ask to be forgotten, where the provider passes that on."""
    there = _Sandbox(url, merchant)
    if customer is None:
        known = there.get("customers", merchant=there.merchant or "")["customers"]
        if not known:
            raise ConfigurationError("this merchant knows no customers", next_step="Name another --merchant.")
        customer = max(known, key=lambda one: len(one["orders"]))["customer_id"]
    there.told(
        f"Customer {there.post('customers/erase', merchant=there.merchant, customer=customer)['customer_id']} asked"
    )


@emit.command()
def uninstall(merchant: Merchant = None, url: Url = URL) -> None:
    """Let a merchant remove the app, where the provider knows apps that are installed."""
    there = _Sandbox(url, merchant)
    there.post("uninstall", merchant=there.merchant)
    there.told(f"{there.merchant} removed the app")


@emit.command()
def location(
    name: Annotated[str, typer.Argument(help="The new store's name.")] = "Pop-up",
    merchant: Merchant = None,
    url: Url = URL,
) -> None:
    """Let a merchant open another store."""
    there = _Sandbox(url, merchant)
    there.told(f"Opened {there.post('locations/open', merchant=there.merchant, name=name)['location_id']}")


@emit.command()
def event(
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="Any event type, known or not.")],
    merchant: Merchant = None,
    url: Url = URL,
) -> None:
    """Announce an event that changes nothing, such as catalog.version.updated, or one that nobody knows."""
    there = _Sandbox(url, merchant)
    there.post("webhooks/emit", merchant=there.merchant, type=kind)
    there.told(f"Announced {kind}")


@emit.command()
def storm(
    merchant: Annotated[str | None, typer.Option(help="Only this merchant; default: all that authorised.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many different events.")] = 1000,
    duplicates: Annotated[float, typer.Option(min=0, max=1, help="Share of them that is sent twice.")] = 0.0,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="In any order but the one they happened in.")] = False,
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as they are taken.")] = 0.0,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share of sales rung up offline up to 72 h ago.")] = 0.0,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="Wait so long for all of them to be taken.")] = 0.0,
    url: Url = URL,
) -> None:
    """Let a rush of sales, edits and refunds happen at once."""
    there = _Sandbox(url, merchant)
    body = {"count": count, "duplicates": duplicates, "shuffle": shuffle, "rate": rate, "late": late}
    made = there.post("storm", merchant=merchant, **body)
    there.told(
        f"{made['sales']} sales, {made['edits']} edits and {made['refunds']} refunds, {made['deliveries']} deliveries"
    )
    deadline = time.monotonic() + wait
    while wait and (left := there.get("webhooks")["pending"]):
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"{left} deliveries are still under way after {wait:g} s",
                next_step="See GET /sandbox/webhooks for what the receiver answers.",
            )
        time.sleep(min(0.25, wait))
