"""Renders the gateway's pages: one Jinja environment that escapes everything, and how values are written for people."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from flux_pipelines.domain import inert
from flux_pipelines.domain.business_day import zone
from flux_pipelines.domain.money import known_currencies

FOLDER = Path(__file__).parent
TEMPLATES = FOLDER / "templates"
STATIC = FOLDER / "static"


def page(template: str, *, status: int = 200, person: Any | None = None, **values: Any) -> HTMLResponse:
    """Render a page. It is never cached: what it shows is one person's.

    Args:
        template: its file under `templates/`.
        status: the HTTP status.
        person: who is signed in (`state.people.Person`); the page's forms carry their CSRF token.
        values: what the template shows.

    """
    csrf = values.pop("csrf", None) or (person.csrf if person is not None else "")
    body = _environment().get_template(template).render(person=person, csrf=csrf, now=datetime.now(UTC), **values)
    return HTMLResponse(body, status_code=status, headers={"Cache-Control": "no-store"})


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        # A value that a template names and nobody gave is a defect, not an empty text.
        undefined=StrictUndefined,
        # Names come from providers: escaped, they could still turn the text around them.
        finalize=lambda value: inert.plain(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        instant=instant, ago=ago, money=money, day=day, number=number, marked=marked, spoken=spoken
    )
    return environment


def instant(moment: datetime | None, zone_name: str = "UTC") -> Markup | str:
    """Write an instant for people, in the time of a place, with its exact value for machines."""
    if moment is None:
        return "never"
    there = moment.astimezone(zone(zone_name))
    # The year only where the rest could mean another one.
    year = f" {there.year}" if abs(datetime.now(UTC) - moment) > timedelta(days=300) else ""
    text = f"{there.day} {there:%b}{year}, {there:%H:%M %Z}"
    return Markup('<time datetime="{}">{}</time>').format(there.isoformat(timespec="seconds"), text)


def ago(moment: datetime | None, now: datetime | None = None) -> Markup | str:
    """Write how long ago an instant was, or how far ahead it is, with the instant itself as the title."""
    if moment is None:
        return "never"
    utc = moment.astimezone(UTC)
    seconds = ((now or datetime.now(UTC)) - utc).total_seconds()
    amount = _span(abs(seconds))
    text = "just now" if amount is None else f"{amount} ago" if seconds > 0 else f"in {amount}"
    title = f"{utc.day} {utc:%b %Y, %H:%M} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(utc.isoformat(timespec="seconds"), title, text)


def _span(seconds: float) -> str | None:
    if seconds < 45:
        return None
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        # Above a unit and a half: `90 minutes` says more than `1 hour`.
        if seconds >= size * 1.5 or unit == "minute":
            count = max(round(seconds / size), 1)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError("every span has a unit")


def day(value: date) -> str:
    """Write a date as `Sat 21 Nov 2026`."""
    return f"{value:%a} {value.day} {value:%b %Y}"


def money(amount: Decimal, currency: str) -> str:
    """Write an amount with its currency's decimal places: `1,234.50 USD`, `1,234 JPY`."""
    places = known_currencies().get(currency)
    # Of a currency that nobody knows the places of, every digit there is.
    return f"{amount:,.{places}f} {currency}" if places is not None else f"{amount:,} {currency}"


def marked(text: str) -> Markup:
    """Write a text for people in which `names` stand between backticks."""
    parts = inert.plain(text).split("`")
    if len(parts) % 2 == 0:  # one of them has no partner
        return escape(inert.plain(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def spoken(name: str) -> str:
    """Write the name of a setting or a secret for people: `client_id` is a client id."""
    return name.replace("_", " ")


def number(value: int) -> str:
    """Write a whole number with thousands separated."""
    return f"{value:,}"
