"""A validated operation, compiled into what has to be read from the sandbox's objects.

graphql-core parses and validates every query against Shopify's schema, coerces its variables and arguments and says which
fields are selected; only the walk over the objects is ours (`execute.py`), because an order has hundreds of fields and
graphql-core resolves some tens of thousands a second. A test holds both to the same answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    TypeNameMetaFieldDef,
    get_location,
    is_abstract_type,
    is_leaf_type,
)
from graphql.execution.collect_fields import collect_fields, collect_sub_fields
from graphql.execution.values import get_argument_values

from flux_sandbox.shopify.ids import Json

MUTATION_COST = 10
_OPEN: frozenset[str] = frozenset()


def connection_cost(size: int) -> int:
    """Return how many nodes a connection of a size is charged for.

    Shopify does not publish it ("sized by the first and last arguments"). It grows like a logarithm: 250 nodes were seen to
    cost as twelve, ten as five, three as three.
    """
    return max(1, round(2.09 * math.log(size) + 0.47)) if size > 0 else 0


class Field:
    """One selected field of an object type."""

    __slots__ = (
        "args",
        "connection",
        "denied",
        "edge",
        "key",
        "leaf",
        "name",
        "nodes",
        "plan",
        "shape",
        "subs",
        "type",
        "typename",
    )

    def __init__(self, plan: Plan, parent: GraphQLObjectType, key: str, nodes: list[FieldNode]) -> None:
        self.plan = plan
        self.key = key
        self.name = nodes[0].name.value
        self.nodes = nodes
        self.typename = parent.name if self.name == "__typename" else ""
        definition = TypeNameMetaFieldDef if self.typename else parent.fields[self.name]
        self.args: Json = get_argument_values(definition, nodes[0], plan.variables)
        self.type, self.shape = _shape(definition.type)
        self.leaf = is_leaf_type(self.type)
        self.connection = self.type.name.endswith("Connection")
        self.edge = self.type.name.endswith("Edge")
        self.denied = plan.denied(parent.name, self.name, self.type.name)
        self.subs: dict[str, list[Field]] = {}

    @property
    def locations(self) -> list[Json]:
        """Where the query selects it, as errors tell it."""
        place = self.nodes[0].loc
        if place is None:
            return []
        found = get_location(place.source, place.start)
        return [{"line": found.line, "column": found.column}]

    def selected(self, type_name: str) -> list[Field]:
        """Return what is selected of an object of a type."""
        found = self.subs.get(type_name)
        if found is None:
            found = self.subs[type_name] = self.plan.below(type_name, self.nodes)
        return found

    def cost(self) -> int:
        """Return the cost of the field if everything asked for were there."""
        if self.leaf:
            return 0
        if self.connection:
            return connection_cost(self._size()) * max(1, self._below(self.type.name))
        # A connection's edges are no objects of their own, and where it stopped costs nothing.
        own = self._below(self.type.name) + (not self.edge and self.type.name != "PageInfo")
        return own * connection_cost(self._size()) if "[" in self.shape and self._size() else own

    def _size(self) -> int:
        return int(self.args.get("first") or self.args.get("last") or len(self.args.get("ids") or ()))

    def _below(self, type_name: str) -> int:
        if not is_abstract_type(self.type):
            return sum(one.cost() for one in self.selected(type_name))
        # "Maximum of possible selections": of the types that the query names.
        kinds = self.plan.possible(self.type)
        return max((sum(one.cost() for one in self.selected(kind)) for kind in kinds), default=0)


class Plan:
    """A compiled operation.

    Args:
        schema: Shopify's.
        operation: the one of the document that is asked for.
        fragments: of the document, by name.
        variables: coerced.
        conditions: the types that the document's fragments name.
        scopes: of the token.
        opened: for every type and field that needs one, the scopes any of which opens it.

    """

    def __init__(
        self,
        schema: GraphQLSchema,
        operation: OperationDefinitionNode,
        fragments: dict[str, FragmentDefinitionNode],
        variables: Json,
        conditions: frozenset[str],
        scopes: frozenset[str],
        opened: Mapping[str, frozenset[str]],
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self.variables = variables
        self._conditions = conditions
        self._scopes = scopes
        self._opened = opened
        self.mutation = operation.operation is OperationType.MUTATION
        root = schema.mutation_type if self.mutation else schema.query_type
        assert root is not None  # noqa: S101 (Shopify's schema has both)
        fields = collect_fields(schema, fragments, variables, root, operation.selection_set)
        self.root = [Field(self, root, key, nodes) for key, nodes in fields.items()]

    def kinds(self, type_: Any) -> Iterable[str]:
        """Return the object types that a type stands for in this query."""
        return self.possible(type_) if is_abstract_type(type_) else (type_.name,)

    def possible(self, abstract: Any) -> Iterable[str]:
        """Return the types of an abstract one that the query tells apart."""
        kinds = [one.name for one in self._schema.get_possible_types(abstract)]
        return [name for name in kinds if name in self._conditions] or kinds[:1]

    def below(self, type_name: str, nodes: list[FieldNode]) -> list[Field]:
        """Return what is selected below some field nodes of an object of a type."""
        parent = self._schema.type_map[type_name]
        if not isinstance(parent, GraphQLObjectType):
            raise TypeError(f"{type_name} is no object type")
        fields = collect_sub_fields(self._schema, self._fragments, self.variables, parent, nodes)
        return [Field(self, parent, key, each) for key, each in fields.items()]

    def denied(self, parent: str, name: str, returned: str) -> frozenset[str]:
        """Return the scopes of which one is needed for a field and none is there; nothing: it is open."""
        for what in (f"{parent}.{name}", returned.removesuffix("Connection")):
            needed = self._opened.get(what, _OPEN)
            if needed and not needed & self._scopes:
                return needed
        return _OPEN

    def cost(self) -> int:
        """Return the cost of everything that is asked for."""
        return sum(one.cost() for one in self.root) + (MUTATION_COST if self.mutation else 0)


def _shape(type_: Any) -> tuple[GraphQLNamedType, str]:
    """Return the named type and its wrapping, outermost first: `![!` is a list that is there of things that are."""
    shape = ""
    while isinstance(type_, GraphQLNonNull | GraphQLList):
        shape += "!" if isinstance(type_, GraphQLNonNull) else "["
        type_ = type_.of_type
    return type_, shape
