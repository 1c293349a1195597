"""Makes `admin_2026-10.json.gz` from the introspection result that Shopify publishes in its npm package @shopify/dev-mcp.

Run by hand when Shopify releases a version: `python -m flux_sandbox.shopify.schema.vendor IN.json.gz OUT.json.gz`.
Every type, field, argument, default and deprecation stays; the descriptions go, which are three quarters of it. Of the map of
access scopes only the types and fields that need one stay.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(one) for name, one in value.items() if name != "description"}
    return [_bare(one) for one in value] if isinstance(value, list) else value


def trimmed(published: dict[str, Any]) -> dict[str, Any]:
    """Return what the sandbox keeps: `schema` (an introspection result) and `scopes` (any one of those named opens it)."""
    scopes = {
        f"{item['typeName']}.{item['fieldName']}" if "fieldName" in item else item["typeName"]: item["offlineScopes"]
        for item in published["offline_scopes"]["items"]
        if item["offlineScopes"]
    }
    return {"schema": _bare(published["data"]), "scopes": dict(sorted(scopes.items()))}


def main(source: str, target: str) -> None:
    """Write the trimmed copy; the same input gives the same bytes."""
    kept = json.dumps(trimmed(json.loads(gzip.decompress(Path(source).read_bytes()))), separators=(",", ":"))
    Path(target).write_bytes(gzip.compress(kept.encode(), 9, mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
