"""Every query that the client sends is valid in the schemas that Shopify published for 2026-07 and 2026-10."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import pytest
from graphql import FieldNode, GraphQLSchema, build_client_schema, parse, validate, visit
from graphql.language import SelectionSetNode, Visitor

from flux_pipelines.providers.shopify import PROVIDER
from flux_pipelines.providers.shopify.queries import OPERATIONS, bulk_orders, operation

SEARCH = "processed_at:>='2026-10-01T00:00:00Z' AND processed_at:<'2026-10-02T00:00:00Z'"


@cache
def schema(path: Path) -> GraphQLSchema:
    # Shopify's own schema breaks a rule about deprecated interface fields, so it is taken as it is.
    return build_client_schema(json.loads(gzip.decompress(path.read_bytes()))["data"], assume_valid=True)


@pytest.mark.parametrize("version", ["2026-07", "2026-10"])
def test_every_query_is_valid(version: str, shared: Path) -> None:
    published = schema(shared / f"specs/shopify/admin_{version}.json.gz")
    texts = {name: operation(name) for name in OPERATIONS} | {"bulk": bulk_orders(SEARCH)}
    found = {name: [str(e.message) for e in validate(published, parse(text))] for name, text in texts.items()}
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_every_file_is_used() -> None:
    from flux_pipelines.providers.shopify import queries

    names = {path.stem for path in Path(queries.__file__).parent.glob("*.graphql")}
    assert names - set(OPERATIONS) == {"bulk_orders", *queries._FRAGMENT_FILES}
    assert PROVIDER.api_version == "2026-10"
    assert PROVIDER.sunset is not None


def _paths(selections: SelectionSetNode, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for node in selections.selections:
        assert isinstance(node, FieldNode) or prefix.endswith((".paymentDetails", ".sales"))
        if not isinstance(node, FieldNode):
            found |= _paths(node.selection_set, prefix)  # type: ignore[union-attr]
            continue
        name = node.name.value
        inside = prefix if name in ("edges", "node", "nodes") else f"{prefix}.{name}"
        found |= _paths(node.selection_set, inside) if node.selection_set else {inside}
    return found


def test_a_bulk_operation_asks_for_the_same_fields_without_connections_in_lists() -> None:
    bulk = parse(bulk_orders(SEARCH))
    paged = bulk_orders.__globals__["_SPREAD"]  # the same fragments, spread out
    text = operation("orders")
    while paged.search(text.partition("fragment")[0]):
        head, _, _ = text.partition("fragment")
        text = paged.sub(lambda m: bulk_orders.__globals__["_fragments"]()[m[1]][1], head)
    there = _paths(bulk.definitions[0].selection_set)  # type: ignore[attr-defined]
    here = _paths(parse(text.partition("fragment")[0]).definitions[0].selection_set)  # type: ignore[attr-defined]
    assert there == {path for path in here if ".pageInfo." not in path and not path.endswith(".cursor")}

    class Depth(Visitor):
        lists = 0

        def enter_field(self, node: FieldNode, *_: object) -> None:
            self.lists += node.name.value == "edges"

    depth = Depth()
    visit(bulk, depth)
    assert depth.lists == 4  # orders, lines, agreements, their sales: at most five are allowed
    assert '"' not in SEARCH
