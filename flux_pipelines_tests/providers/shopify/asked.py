"""What a query asks for, of a document that Shopify could have given: read with graphql-core, not with the sandbox's own walk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLList,
    GraphQLNonNull,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    is_abstract_type,
    is_leaf_type,
    is_object_type,
    parse,
)

from flux_pipelines.providers.shopify.queries import operation
from flux_sandbox.shopify.schema import admin_schema

Json = dict[str, Any]
#: What is said of a thing where the schema allows no null and the example says nothing.
_NEUTRAL: Mapping[str, Any] = {
    "Boolean": False,
    "Int": 0,
    "String": "",
    "ID": "gid://shopify/Thing/1",
    "Decimal": "0.0",
    "DateTime": "2025-01-01T00:00:00Z",
    "OrderDisplayFulfillmentStatus": "UNFULFILLED",
    "OrderReturnStatus": "NO_RETURN",
    "RefundLineItemRestockType": "NO_RESTOCK",
}


class Asked:
    """The fields that an operation of the client selects of its nodes.

    Args:
        name: the operation.
        kind: the type of the nodes.
        path: the fields that lead to them.

    """

    def __init__(self, name: str, kind: str, *path: str) -> None:
        self._document = _parsed(operation(name))
        self._kind = kind
        self._neutral: Mapping[str, Any] = _NEUTRAL
        (operation_,) = (d for d in self._document.definitions if isinstance(d, OperationDefinitionNode))
        selected: Any = operation_.selection_set
        for step in path:
            (selected,) = (f.selection_set for f in self._fields(selected, {}) if f.name.value == step)
        self._selected: SelectionSetNode = selected

    def of(self, document: Any) -> Any:
        """Return what is landed of a document: what it does not have is null, a connection is its nodes."""
        return self._of(self._selected, document)

    def wired(self, document: Mapping[str, Any]) -> Json:
        """Return a document with what no answer of Shopify's can be without: what the schema never lets be null.

        What the buyer saw is taken to be what the shop was paid, unless it is said.
        """
        self._neutral = {**_NEUTRAL, "CurrencyCode": document.get("currencyCode", "USD")}
        return self._wired(admin_schema().type_map[self._kind], self._selected, document)

    def _fields(self, selected: SelectionSetNode, document: Mapping[str, Any]) -> Iterator[FieldNode]:
        fragments = {d.name.value: d for d in self._document.definitions if isinstance(d, FragmentDefinitionNode)}
        for node in selected.selections:
            if isinstance(node, FieldNode):
                if node.name.value != "pageInfo":  # is not landed
                    yield node
                continue
            found = fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
            assert isinstance(found, FragmentDefinitionNode | InlineFragmentNode)
            condition = found.type_condition.name.value if found.type_condition else ""
            abstract = bool(condition) and is_abstract_type(admin_schema().type_map[condition])
            if abstract or document.get("__typename", condition) == condition:
                yield from self._fields(found.selection_set, document)

    def _of(self, selected: SelectionSetNode | None, value: Any) -> Any:
        if isinstance(value, list):
            return [self._of(selected, one) for one in value]
        if selected is None or value is None:
            return value
        found: Json = {}
        for f in self._fields(selected, value):
            if f.name.value == "edges":  # are landed as nodes
                assert f.selection_set is not None
                (node,) = (one for one in self._fields(f.selection_set, {}) if one.name.value == "node")
                found["nodes"] = [self._of(node.selection_set, one) for one in value["nodes"]]
            else:
                found[(f.alias or f.name).value] = self._of(f.selection_set, value.get(f.name.value))
        return found

    def _wired(self, kind: Any, selected: SelectionSetNode, document: Mapping[str, Any]) -> Json:
        made = dict(document)
        if kind.name == "MoneyBag":
            made.setdefault("presentmentMoney", made["shopMoney"])
        for field in self._fields(selected, document):
            name = field.name.value
            # What happened to an order is either said or worked out of it: see the sandbox's `sandbox_ledger`.
            if name not in ("__typename", "agreements"):
                made[name] = self._value(kind.fields[name].type, field.selection_set, made.get(name))
        return made

    def _value(self, kind: Any, selected: SelectionSetNode | None, value: Any) -> Any:
        if isinstance(kind, GraphQLNonNull):
            kind = kind.of_type
            value = self._nothing(kind) if value is None else value
        if value is None or is_leaf_type(kind):
            return value
        if isinstance(kind, GraphQLList):
            return [self._value(kind.of_type, selected, one) for one in value]
        assert selected is not None
        return self._wired(
            kind if is_object_type(kind) else admin_schema().type_map[value["__typename"]], selected, value
        )

    def _nothing(self, kind: Any) -> Any:
        if isinstance(kind, GraphQLList):
            return []
        if not is_leaf_type(kind):
            return {"shopMoney": {"amount": "0.0"}} if kind.name == "MoneyBag" else {}
        return self._neutral[kind.name]


@cache
def _parsed(text: str) -> DocumentNode:
    return parse(text)


ORDERS = Asked("orders_by_id", "Order", "nodes")
PRODUCTS = Asked("products", "Product", "products", "nodes")
LEVELS = Asked("inventory", "InventoryLevel", "location", "inventoryLevels", "nodes")
_OF = {"orders": ORDERS, "products": PRODUCTS, "inventoryLevels": LEVELS}


def wired(kind: str, documents: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Return documents of a kind that the sandbox takes in, as `Asked.wired` does."""
    return [_OF[kind].wired(one) for one in documents]
