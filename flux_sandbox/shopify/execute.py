"""Walks the sandbox's objects along a compiled operation: values, errors with their paths, and what the answer costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flux_sandbox.shopify.errors import QueryError, denied, unplayed
from flux_sandbox.shopify.ids import Json
from flux_sandbox.shopify.plan import MUTATION_COST, Field, Plan, connection_cost
from flux_sandbox.shopify.values import Call, Nodes, Page

Path = tuple[str | int, ...]


class NullError(Exception):
    """A value is missing where the schema has none: the nearest one above that may be null becomes null."""


class Execution:
    """One execution of a plan over a root object.

    Attributes:
        errors: in the form of the answer.
        cost: of what was found.

    """

    def __init__(self, plan: Plan, root: Json) -> None:
        self._plan = plan
        self._root = root
        self.errors: list[Json] = []
        self.cost = MUTATION_COST if plan.mutation else 0

    def run(self) -> Json | None:
        """Return the answer's `data`."""
        try:
            return self.object(self._plan.root, self._root, ())
        except NullError:
            return None

    def object(self, fields: Sequence[Field], source: Json, path: Path) -> Json:
        """Return the selected fields of an object."""
        out: Json = {}
        for field in fields:
            if field.typename:
                out[field.key] = field.typename
                continue
            try:
                value = source[field.name]
            except KeyError:
                value = _MISSING
            if field.leaf and not field.denied and not isinstance(value, Call) and value is not _MISSING:
                if value is None and field.shape[:1] == "!":
                    self._fail(field, path, QueryError(f"Cannot return null for non-nullable field {field.name}."))
                    raise NullError
                out[field.key] = value
            else:
                out[field.key] = self._field(field, value, path)
        return out

    def _field(self, field: Field, value: Any, path: Path) -> Any:
        here = (*path, field.key)
        try:
            if field.denied:
                raise denied(field.name, sorted(field.denied))
            if value is _MISSING:
                raise unplayed(f"the field {'.'.join(map(str, here))}")
            if isinstance(value, Call):
                value = value.make(field.args)
            if isinstance(value, Nodes):
                value = value.page(field.args)
            if isinstance(value, Page):
                return self.connection(field, value, here)
            return self._complete(field, value, field.shape, here)
        except QueryError as error:
            self.errors.append(error.as_json(here, field.locations))
        except NullError:
            pass
        if field.shape[:1] == "!":
            raise NullError
        return None

    def _complete(self, field: Field, value: Any, shape: str, path: Path) -> Any:
        if shape[:1] == "!":
            if value is None:
                raise QueryError(f"Cannot return null for non-nullable field {field.name}.")
            return self._complete(field, value, shape[1:], path)
        if value is None:
            return None
        if shape[:1] == "[":
            if "first" in field.args and field.args["first"] is not None:
                value = value[: field.args["first"]]
            return [self._element(field, one, shape[1:], (*path, index)) for index, one in enumerate(value)]
        if field.leaf:
            return value
        self.cost += 1
        return self.object(field.selected(value.get("__typename", field.type.name)), value, path)

    def _element(self, field: Field, value: Any, shape: str, path: Path) -> Any:
        try:
            return self._complete(field, value, shape, path)
        except NullError:
            if shape[:1] == "!":
                raise
            return None

    def connection(self, field: Field, page: Page, path: Path) -> Json:
        """Return a page as the connection's fields have it; it costs as if its nodes were what was asked for."""
        before, self.cost = self.cost, 0
        out: Json = {}
        for one in field.selected(field.type.name):
            here = (*path, one.key)
            if one.name == "pageInfo":
                out[one.key] = self.object(one.selected("PageInfo"), _page_info(page), here)
            elif one.name == "nodes":
                out[one.key] = self._complete(one, page.items, one.shape, here)
            elif one.name == "edges":
                selected = one.selected(one.type.name)
                edges = [{"node": node, "cursor": Call(_cursor(page, n))} for n, node in enumerate(page.items)]
                out[one.key] = [self.object(selected, edge, (*here, n)) for n, edge in enumerate(edges)]
            else:
                out[one.key] = one.typename
        size = len(page.items)
        self.cost = before + (-(-self.cost * connection_cost(size) // size) if size else 1)
        return out

    def _fail(self, field: Field, path: Path, error: QueryError) -> None:
        self.errors.append(error.as_json((*path, field.key), field.locations))


_MISSING: Any = object()


def _cursor(page: Page, index: int) -> Callable[[Any], str]:
    return lambda _: page.cursor(index)


def _page_info(page: Page) -> Json:
    return {
        "hasNextPage": page.after,
        "endCursor": page.cursor(len(page.items) - 1) if page.items else None,
    }
