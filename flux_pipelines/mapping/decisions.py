"""The two mapping tables, made from the catalog in the lake and what people have decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.domain.tables import DAILY_ITEM_DEMAND, LOCATIONS, PRODUCTS
from flux_pipelines.mapping.matching import Key, Suggestion, Thing, suggest
from flux_pipelines.state.connections.mappings import Decision, Kind

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime

# What was sold and is in no catalog (custom amounts, products deleted before the first look) is there all the same.
_PRODUCTS = f"""
with catalog as (
    select connection, tenant, product_id, product_name, variation, sku, upc from {PRODUCTS.name}
    qualify row_number() over (partition by connection, product_id order by valid_from desc) = 1
), sold as (
    select connection, any_value(tenant) as tenant, product_id, arg_max(product_name, business_date) as product_name,
        arg_max(variation, business_date) as variation, null as sku, null as upc
    from {DAILY_ITEM_DEMAND.name}
    where (connection, product_id) not in (select (connection, product_id) from catalog)
    group by connection, product_id
)
from catalog union all by name from sold order by tenant, connection, product_id
"""
_LOCATIONS = f"""
select connection, tenant, location_id, name, null, null, timezone from {LOCATIONS.name}
order by tenant, connection, location_id
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing: what it is at its provider, what people call it, and what it looks like."""

    tenant: str
    thing: Thing
    product_name: str
    variation: str | None
    sku: str | None
    name: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    suggestion: Suggestion | None = None


def rows(runtime: Runtime, kind: Kind) -> list[Row]:
    """Return every product (or location) of every connection with its name in the books or a suggestion.

    Raises:
        TableDamagedError: the catalog cannot be read.

    """
    decisions = runtime.state.mappings.all(kind)
    same = {Key(d.connection_key, d.external_id): d for d in decisions if d.verdict == "same"}
    refused: dict[Key, set[str]] = {}
    for decision in decisions:
        if decision.verdict == "different":
            refused.setdefault(Key(decision.connection_key, decision.external_id), set()).add(decision.name)
    found = _things(runtime, kind)
    suggestions: dict[Key, Suggestion] = {}
    for tenant in {row.tenant for row in found}:
        suggestions |= suggest(
            [row.thing for row in found if row.tenant == tenant],
            {key: decision.name for key, decision in same.items()},
            {key: frozenset(names) for key, names in refused.items()},
        )
    return [_with(row, same.get(row.thing.key), suggestions.get(row.thing.key)) for row in found]


def _with(row: Row, decision: Decision | None, suggestion: Suggestion | None) -> Row:
    if decision is not None:
        return replace(row, name=decision.name, decided_by=decision.decided_by, decided_at=decision.decided_at)
    return replace(row, suggestion=suggestion)


def _things(runtime: Runtime, kind: Kind) -> list[Row]:
    from flux_pipelines.lake import session

    tables = [PRODUCTS.name, DAILY_ITEM_DEMAND.name] if kind == "product" else [LOCATIONS.name]
    with session(runtime.lake, tables) as database:
        found = database.execute(_PRODUCTS if kind == "product" else _LOCATIONS).fetchall()
    rows = []
    for connection, tenant, id_, name, variation, *codes in found:
        called = " ".join(part for part in (name, variation) if part)
        if kind == "product":
            sku, upc = codes
            thing = Thing(Key(connection, id_), called, upc=upc or "", sku=sku or "")
        else:
            sku, thing = None, Thing(Key(connection, id_), name, place=codes[-1])
        rows.append(Row(tenant, thing, name, variation, sku))
    return rows


def confirm(runtime: Runtime, kind: Kind, chosen: Sequence[tuple[Key, str | None]], *, by: str) -> int:
    """Record what things are called in the books; without a name, what was suggested. Return how many.

    Raises:
        ConfigurationError: there is no such thing, or nothing was suggested for it.

    """
    known = {row.thing.key: row for row in rows(runtime, kind)}
    decisions = [(key.connection, key.id, name or _suggested(known, kind, key)) for key, name in chosen]
    return runtime.state.mappings.decide(kind, decisions, by=by)


def refuse(runtime: Runtime, kind: Kind, key: Key, *, by: str) -> str:
    """Record that a thing is not what was suggested for it, and return that name.

    Raises:
        ConfigurationError: there is no such thing, or nothing was suggested for it.

    """
    name = _suggested({row.thing.key: row for row in rows(runtime, kind)}, kind, key)
    runtime.state.mappings.decide(kind, [(key.connection, key.id, name)], by=by, verdict="different")
    return name


def take_back(runtime: Runtime, kind: Kind, key: Key, *, by: str) -> str:
    """Forget what a thing was said to be called, and return that name.

    Raises:
        ConfigurationError: nothing was decided of it.

    """
    for decision in runtime.state.mappings.all(kind):
        if (decision.connection_key, decision.external_id, decision.verdict) == (*key, "same"):
            runtime.state.mappings.decide(kind, [(*key, decision.name)], by=by, verdict="undone")
            return decision.name
    raise ConfigurationError(f"nobody has decided what the {kind} {key.id!r} is", connection=key.connection)


def _suggested(known: Mapping[Key, Row], kind: Kind, key: Key) -> str:
    row = known.get(key)
    if row is None:
        raise ConfigurationError(
            f"there is no {kind} {key.id!r}", connection=key.connection, next_step=f"See `flux map list {kind}s`."
        )
    if row.suggestion is None:
        raise ConfigurationError(
            f"nothing is suggested for the {kind} {key.id!r}", connection=key.connection, next_step="Give its name."
        )
    return row.suggestion.name


def sure(found: Sequence[Row], least: Decimal) -> list[Row]:
    """Return the undecided rows whose suggestion is at least that sure."""
    return [row for row in found if row.suggestion is not None and row.suggestion.score >= least]
