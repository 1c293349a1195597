"""Every method and path that the gateway answers, so that a new one is tested without being listed anywhere."""

from __future__ import annotations

from typing import Any

from flux_pipelines.gateway import api
from flux_pipelines.gateway.app import ROUTERS

VALUES = {"provider": "square", "key": "square:acme", "alert_id": "1", "token_id": "1"}


def every_route() -> list[tuple[str, str]]:
    """Method and path (with its placeholders) of every route."""
    found: set[tuple[str, str]] = set()
    for router in (*ROUTERS, api.v1):
        for route in router.routes:
            found |= {(method, route.path) for method in _methods(route) if method != "HEAD"}
    return sorted(found)


def _methods(route: Any) -> set[str]:
    # Nested routers have no path of their own: they are in the list above.
    return set(getattr(route, "methods", None) or ()) if hasattr(route, "path") else set()


def filled(path: str) -> str:
    """The path with something in every placeholder."""
    for name, value in VALUES.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, f"give {path} a value in VALUES"
    return path
