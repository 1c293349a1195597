"""Bulk operations: a query without pages, run in the background, its result a file of JSON lines.

Facts: https://shopify.dev/docs/api/usage/bulk-operations/queries. At most five of a shop run at a time; at most five connections,
two deep, none within a list; a line holds an object without its connections, whose objects are lines of their own that name
their parent. Unless the objects are asked to be grouped, which Flux does not, a line may come long before or after its parent's.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from flux_sandbox.shopify.errors import QueryError, unplayed
from flux_sandbox.shopify.execute import Execution, NullError, Path
from flux_sandbox.shopify.ids import Json, gid
from flux_sandbox.shopify.plan import Field, Plan
from flux_sandbox.shopify.queries import Refused, compiled
from flux_sandbox.shopify.root import Root
from flux_sandbox.shopify.values import Call, Page

if TYPE_CHECKING:
    from flux_sandbox.shopify.shop import Shop

MOST_CONNECTIONS = 5
MOST_RUNNING = 5
DEEPEST = 2
_KEPT = timedelta(days=7)
_CHUNK = 50
_POLLS = 2  # of an operation, before it can be seen to be over
_DROP: Any = object()


def problem_of(plan: Plan) -> str:
    """Return why an operation cannot be run in bulk, or nothing."""
    if plan.mutation:
        return "Invalid bulk query: only queries can be run."
    if len(plan.root) != 1 or not plan.root[0].connection:
        return "Bulk queries must contain exactly one top level field, and it must be a connection."
    connections = _connections(plan.root[0], 0, listed=False)
    try:
        found = list(connections)
    except QueryError as error:
        return error.message
    if len(found) > MOST_CONNECTIONS:
        return f"Bulk queries cannot contain more than {MOST_CONNECTIONS} connections."
    if max(found) > DEEPEST:
        return f"Bulk queries cannot contain connections that are nested more than {DEEPEST} levels deep."
    return ""


def _connections(field_: Field, depth: int, *, listed: bool) -> Iterator[int]:
    """Yield the depth of every connection at and below a field."""
    if field_.leaf:
        return
    if not field_.connection:
        for below in _below(field_):
            yield from _connections(below, depth, listed=listed or "[" in field_.shape)
        return
    if listed:
        raise QueryError("Queries that contain a connection field within a list field are not currently supported.")
    yield depth
    for node in node_fields(field_):
        selected = _below(node)
        nested = [below for below in selected if below.connection]
        if nested and not any(one.name == "id" and one.key == "id" for one in selected):
            raise QueryError(
                "The parent 'node' field for a nested connection must select the 'id' field without an alias "
                "and must be of 'ID' return type."
            )
        for below in selected:
            yield from _connections(below, depth + 1, listed=False)


def _below(field_: Field) -> list[Field]:
    found = []
    for kind in field_.plan.kinds(field_.type):
        found += field_.selected(kind)
    return found


def node_fields(field_: Field) -> list[Field]:
    """Return the fields of a connection that select its nodes: `nodes`, and `node` of `edges`."""
    found = []
    for one in field_.selected(field_.type.name):
        if one.name == "nodes":
            found.append(one)
        elif one.name == "edges":
            found += [below for below in one.selected(one.type.name) if below.name == "node"]
    return found


class _Lines(Execution):
    """Executes a plan into lines: for every object of the root connection one, and those of its connections."""

    def __init__(self, plan: Plan, root: Json) -> None:
        super().__init__(plan, root)
        self._parents: list[Any] = []
        self._group: list[Json] = []
        #: Whether an object had to be left out, and all that comes after it: a value is missing where the schema has none.
        self.broken = False
        self.page = self._open(plan.root[0], root)

    def _open(self, field_: Field, source: Json) -> Page:
        field_.args = {name: value for name, value in field_.args.items() if name not in ("last", "after", "before")}
        field_.args["first"] = 0
        value = source[field_.name]
        value = value.make(field_.args) if isinstance(value, Call) else value
        return value if isinstance(value, Page) else value.page(field_.args)

    def groups(self) -> Iterator[list[Json]]:
        """Yield the lines of one object of the root connection after the other, its own first."""
        for entry in self.page.rest:
            self._group, self._parents = [], []
            try:
                self._line(self._plan.root[0], self.page.make(entry))
            except NullError:
                self.broken = True
                return
            yield self._group

    def _line(self, field_: Field, node: Json) -> None:
        line: Json = {}
        place = len(self._group)
        self._group.append(line)
        self._parents.append(node.get("id"))
        for one in node_fields(field_):
            line |= self.object(one.selected(node.get("__typename", one.type.name)), node, ())
        self._parents.pop()
        if self._parents:
            line["__parentId"] = self._parents[-1]
        self._group[place] = line

    def object(self, fields: Sequence[Field], source: Json, path: Path) -> Json:
        """Return an object without its connections."""
        for one in fields:
            if one.connection and not one.denied and "first" not in one.args:
                one.args = {**one.args, "first": 0}
        found = super().object(fields, source, path)
        return {key: value for key, value in found.items() if value is not _DROP}

    def connection(self, field: Field, page: Page, path: Path) -> Any:  # noqa: ARG002
        """Write the objects of a connection as lines of their own."""
        for entry in page.rest:
            self._line(field, page.make(entry))
        return _DROP


@dataclass
class Operation:
    """One bulk operation."""

    id: str
    query: str
    created: datetime
    url: str
    status: str = "CREATED"
    error: str | None = None
    objects: int = 0
    roots: int = 0
    polls: int = 0
    over: bool = False  # the work, whatever has been told of it
    cancelled: bool = False
    content: bytes = b""
    done: threading.Event = field(default_factory=threading.Event)

    def poll(self) -> None:
        """Move on, as far as the work has come: an operation is seen to be created, then to run, then to be over."""
        self.polls += 1
        if self.status == "CANCELING":
            self.status = "CANCELED"
        elif self.status == "CREATED":
            self.status = "RUNNING"
        elif self.status == "RUNNING" and self.over and self.polls > _POLLS:
            self.status = "FAILED" if self.error else "COMPLETED"

    def as_json(self) -> Json:
        """Return the BulkOperation."""
        ended = self.status in ("COMPLETED", "FAILED", "CANCELED")
        url = self.url if self.content else None
        return {
            "id": self.id,
            "status": self.status,
            "errorCode": self.error if ended else None,
            "objectCount": str(self.objects),
            "rootObjectCount": str(self.roots),
            "fileSize": str(len(self.content)) if self.status == "COMPLETED" and url else None,
            "url": url if self.status == "COMPLETED" else None,
            "partialDataUrl": url if self.status in ("FAILED", "CANCELED") else None,
        }


class BulkOperations:
    """The bulk operations of every shop.

    Args:
        clock: tells the time.

    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._made = 0
        self._by_shop: dict[str, dict[str, Operation]] = {}
        self._files: dict[str, Operation] = {}
        #: How many operations to come fail half way, by merchant id.
        self.failing: dict[str, int] = {}

    def fields(self, shop: Shop, scopes: frozenset[str], base_url: str) -> tuple[Json, Json]:
        """Return the root fields of queries and of mutations."""
        mine = self._by_shop.setdefault(shop.merchant.id, {})

        def one(args: Mapping[str, Any]) -> Json | None:
            found = mine.get(args["id"])
            if found is None:
                return None
            found.poll()
            return found.as_json()

        def run(args: Mapping[str, Any]) -> Json:
            if args.get("groupObjects"):
                raise unplayed("grouped objects")
            return self._run(shop, scopes, base_url, args["query"])

        def cancel(args: Mapping[str, Any]) -> Json:
            found = mine.get(args["id"])
            if found is None or found.status not in ("CREATED", "RUNNING"):
                message = (
                    "Bulk operation does not exist"
                    if found is None
                    else "A bulk operation can only be canceled while running."
                )
                shown = found.as_json() if found else None
                return {"bulkOperation": shown, "userErrors": [{"field": ["id"], "message": message}]}
            found.cancelled, found.status = True, "CANCELING"
            return {"bulkOperation": found.as_json(), "userErrors": []}

        return {"bulkOperation": Call(one)}, {"bulkOperationRunQuery": Call(run), "bulkOperationCancel": Call(cancel)}

    def _run(self, shop: Shop, scopes: frozenset[str], base_url: str, query: str) -> Json:
        mine = self._by_shop[shop.merchant.id]
        for gone in [id_ for id_, one in mine.items() if self._clock() > one.created + _KEPT]:
            del mine[gone]
        running = [one for one in mine.values() if one.status in ("CREATED", "RUNNING") and not one.over]
        if len(running) >= MOST_RUNNING:
            message = f"A bulk query operation for this app and shop is already in progress: {running[0].id}."
            return _refused(message, "OPERATION_IN_PROGRESS", None)
        try:
            plan = compiled(query, None, None, scopes)
        except Refused as refused:
            return _refused(f"Invalid bulk query: {refused}", "INVALID", ["query"])
        problem = problem_of(plan)
        if problem:
            return _refused(problem, "INVALID", ["query"])
        self._made += 1
        token = secrets.token_urlsafe(24)
        now = self._clock()
        for old in [name for name, one in self._files.items() if now > one.created + _KEPT]:
            del self._files[old]
        expires = int((now + _KEPT).timestamp())
        url = f"{base_url}/shopify/bulk/{token}.jsonl?Expires={expires}&Signature={secrets.token_urlsafe(32)}"
        made = Operation(gid("BulkOperation", 4_000_000_000_000 + self._made), query, now, url)
        mine[made.id] = self._files[token] = made
        fails = self.failing.get(shop.merchant.id, 0) > 0
        if fails:
            self.failing[shop.merchant.id] -= 1
        if plan.root[0].denied:
            made.error, made.over = "ACCESS_DENIED", True
            made.done.set()
        else:
            lines = _Lines(plan, Root(shop, scopes, []).query())
            work = threading.Thread(target=self._work, args=(made, lines, fails), daemon=True)
            work.start()
        return {"bulkOperation": made.as_json(), "userErrors": []}

    def _work(self, made: Operation, lines: _Lines, fails: bool) -> None:
        half = (len(lines.page.rest) + 1) // 2
        encode = msgspec.json.Encoder().encode
        parts: list[bytes] = []
        chunk: list[list[Json]] = []

        def write() -> None:
            groups = _apart(chunk, (made.roots // _CHUNK) % 2)
            parts.append(b"".join(encode(line) + b"\n" for line in groups))
            chunk.clear()

        for group in lines.groups():
            if made.cancelled or (fails and made.roots >= half):
                break
            chunk.append(group)
            made.roots += 1
            made.objects += len(group)
            if len(chunk) == _CHUNK:
                write()
        write()
        made.content = b"".join(parts)
        if fails or lines.broken:
            made.error = "INTERNAL_SERVER_ERROR"
        elif any(one.get("extensions", {}).get("code") == "ACCESS_DENIED" for one in lines.errors):
            made.error = "ACCESS_DENIED"
        made.over = True
        made.done.set()

    def file(self, token: str, signature: str) -> bytes | None:
        """Return a result file, or None: there is none, or no longer."""
        found = self._files.get(token)
        if found is None or not found.url.endswith(f"Signature={signature}") or self._clock() > found.created + _KEPT:
            return None
        return found.content


def _apart(groups: Sequence[Sequence[Json]], odd: int) -> list[Json]:
    """Return the lines of some groups with the roots apart from everything below them: before it, or behind it."""
    roots = [group[0] for group in groups]
    below = [line for group in groups for line in group[1:]]
    return below + roots if odd else roots + below


def _refused(message: str, code: str, where: list[str] | None) -> Json:
    return {"bulkOperation": None, "userErrors": [{"field": where, "message": message, "code": code}]}
