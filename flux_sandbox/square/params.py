"""How Square reads what it is asked: every parameter is known and of its type, or the request is refused.

Known are those that Flux asks with; one that Square has beside them is refused like one that it has not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flux_sandbox.square.errors import ApiError, invalid

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

_RFC3339 = re.compile(r"^(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)$")
FIRST, LAST = -(2**62), 2**62


def expect(value: Any, kind: type, code: str, field: str) -> Any:
    """Return a value that is of a JSON type."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise invalid(code, f"Expected a different type for `{field}`.", field)
    return value


def an_object(value: Any, field: str, known: frozenset[str]) -> dict[str, Any]:
    """Return an object that has known members only; nothing is an empty one."""
    if value is None:
        return {}
    found: dict[str, Any] = expect(value, dict, "EXPECTED_OBJECT", field)
    for name in found:
        if name not in known:
            where = f"{field}.{name}" if field else name
            raise invalid("UNKNOWN_BODY_PARAMETER", f"The body parameter `{where}` is not recognized.", where)
    return found


def a_body(value: Any, *known: str) -> dict[str, Any]:
    """Return the body of a request."""
    if not isinstance(value, dict):
        raise invalid("EXPECTED_JSON_BODY", "The request body is not a JSON object.")
    return an_object(value, "", frozenset(known))


def strings(value: Any, field: str, most: int, allowed: frozenset[str] | None = None) -> tuple[str, ...]:
    """Return a list of texts, of a closed set if there is one."""
    if value is None:
        return ()
    for one in expect(value, list, "EXPECTED_ARRAY", field):
        expect(one, str, "EXPECTED_STRING", field)
        if allowed is not None and one not in allowed:
            raise invalid("INVALID_ENUM_VALUE", f"`{one}` is not a valid enum value for `{field}`.", field)
    if len(value) > most:
        raise invalid("ARRAY_LENGTH_TOO_LONG", f"Array must contain no more than {most} elements.", field)
    return tuple(value)


def one_of(value: Any, field: str, allowed: tuple[str, ...]) -> str:
    """Return a text of a closed set, the first of which is the default."""
    if value is None:
        return allowed[0]
    if value not in allowed:
        code = "INVALID_SORT_ORDER" if field.endswith("order") else "INVALID_ENUM_VALUE"
        raise invalid(code, f"`{value}` is not a valid enum value for `{field}`.", field)
    return str(value)


def limit(value: Any, default: int, most: int) -> int:
    """Return a page size; beyond the bounds is an error."""
    found: int = expect(default if value is None else value, int, "EXPECTED_INTEGER", "limit")
    if found < 1:
        raise invalid("VALUE_TOO_LOW", "`limit` must be at least 1.", "limit")
    if found > most:
        raise invalid("VALUE_TOO_HIGH", f"`limit` must be no more than {most}.", "limit")
    return found


def instant(text: Any, field: str) -> int:
    """Return an RFC 3339 time of any precision as UTC nanoseconds."""
    match = _RFC3339.match(expect(text, str, "EXPECTED_STRING", field))
    try:
        if match is None:
            raise ValueError
        day, clock, fraction, offset = match.groups()
        whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError:
        raise invalid("INVALID_TIME", f"`{text}` is not a valid RFC 3339 timestamp.", field) from None
    return int(whole.timestamp()) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def between(first: Any, last: Any, first_field: str, last_field: str) -> tuple[int, int | None]:
    """Return an interval whose ends belong to it, in UTC milliseconds; no end is None."""
    low, high = FIRST, None
    if first is not None:
        low = -(-instant(first, first_field) // 1_000_000)
    if last is not None:
        high = instant(last, last_field) // 1_000_000
    if first is not None and last is not None and instant(first, first_field) > instant(last, last_field):
        raise invalid("INVALID_TIME_RANGE", "The start time must not be after the end time.", first_field)
    return low, high


def a_range(value: Any, field: str) -> tuple[int, int | None]:
    """Return what `{"start_at", "end_at"}` asks for: see `between`."""
    span = an_object(value, field, frozenset({"start_at", "end_at"}))
    return between(span.get("start_at"), span.get("end_at"), f"{field}.start_at", f"{field}.end_at")


def a_query(params: QueryParams, known: frozenset[str]) -> dict[str, str]:
    """Return the query of an address: known names, each once, none empty."""
    found: dict[str, str] = {}
    for name, value in params.multi_items():
        if name not in known:
            raise invalid("UNKNOWN_QUERY_PARAMETER", f"The query parameter `{name}` is not recognized.", name)
        if name in found:
            raise invalid("CONFLICTING_PARAMETERS", f"The query parameter `{name}` is given twice.", name)
        if value:
            found[name] = value
    return found


def a_number(query: Mapping[str, str], name: str) -> int | None:
    """Return a whole number out of a query."""
    text = query.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"-?\d{1,18}", text):
        raise invalid("EXPECTED_INTEGER", f"Expected an integer value for `{name}`.", name)
    return int(text)


def forbidden() -> ApiError:
    """Return the answer to a location of somebody else's.

    As production answers (connect-php-sdk#2): nothing tells a stranger's location from none at all.
    """
    return ApiError(403, "FORBIDDEN", "You have insufficient permissions to perform that action.")
