"""Reads GraphQL requests: parsed and validated once a text by graphql-core, compiled once a request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    Visitor,
    parse,
    validate,
    visit,
)
from graphql.execution.values import get_variable_values

from flux_sandbox.shopify.errors import HttpError, QueryError
from flux_sandbox.shopify.ids import Json
from flux_sandbox.shopify.plan import Plan
from flux_sandbox.shopify.schema import access_scopes, admin_schema


class Refused(Exception):
    """A request that is not executed: its errors, in the form of the answer."""

    def __init__(self, errors: list[Json]) -> None:
        super().__init__(errors[0]["message"])
        self.errors = errors


class Document(NamedTuple):
    """A validated document."""

    operations: tuple[OperationDefinitionNode, ...]
    fragments: dict[str, FragmentDefinitionNode]
    conditions: frozenset[str]


class _Conditions(Visitor):
    """Collects the types that fragments name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def enter(self, node: Any, *_: Any) -> None:
        condition = getattr(node, "type_condition", None)
        if condition is not None:
            self.found.add(condition.name.value)


def _as_json(error: GraphQLError) -> Json:
    made: Json = {"message": error.message}
    if error.locations:
        made["locations"] = [{"line": one.line, "column": one.column} for one in error.locations]
    return made


@lru_cache(maxsize=512)
def read(text: str) -> Document:
    """Return a document.

    Raises:
        Refused: it is not GraphQL, or not of this schema.

    """
    try:
        document: DocumentNode = parse(text)
    except GraphQLError as error:
        raise Refused([_as_json(error)]) from None
    problems = validate(admin_schema(), document)
    if problems:
        raise Refused([_as_json(one) for one in problems])
    conditions = _Conditions()
    visit(document, conditions)
    operations = tuple(one for one in document.definitions if isinstance(one, OperationDefinitionNode))
    fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}
    return Document(operations, fragments, frozenset(conditions.found))


def compiled(text: Any, variables: Any, name: Any, scopes: frozenset[str]) -> Plan:
    """Return what is to be executed.

    Raises:
        Refused: there is nothing to execute, or it is not GraphQL or not of this schema.

    """
    if not isinstance(text, str) or not text.strip():
        raise Refused([{"message": "No query string was present"}])
    document = read(text)
    named = [one for one in document.operations if name in (None, "") or (one.name and one.name.value == name)]
    if len(named) != 1:
        message = f'Operation named "{name}" was not found.' if name else "An operation name is required"
        raise Refused([{"message": message}])
    if named[0].operation is OperationType.SUBSCRIPTION:
        raise Refused([{"message": "Schema is not configured for subscriptions"}])
    if variables is not None and not isinstance(variables, Mapping):
        raise Refused([{"message": "Variables must be an object."}])
    coerced = get_variable_values(admin_schema(), named[0].variable_definitions, dict(variables or {}))
    if isinstance(coerced, list):
        made = [{**_as_json(one), "extensions": {"code": "INVALID_VARIABLE"}} for one in coerced]
        raise Refused(made)
    try:
        return Plan(admin_schema(), named[0], document.fragments, coerced, document.conditions, scopes, access_scopes())
    except QueryError as error:
        raise Refused([error.as_json()]) from None
    except GraphQLError as error:
        raise Refused([_as_json(error)]) from None


def body_of(raw: bytes) -> dict[str, Any]:
    """Return the object that a request holds.

    Raises:
        HttpError: 400: it holds none.

    """
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise HttpError(400, {"errors": {"query": "Required parameter missing or invalid"}}) from None


def has_cursor(body: Mapping[str, Any]) -> bool:
    """Tell whether a request asks for a page behind a cursor."""
    variables = body.get("variables")
    return isinstance(variables, dict) and any(variables.get(name) for name in ("after", "cursor"))
