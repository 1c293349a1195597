"""Shopify's Admin GraphQL schema as published, for the sandbox and the tests; see README.md beside this file.

Building it takes about half a second, so it is built when it is first asked for.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from graphql import GraphQLSchema

#: The version that the copy is of.
VERSION = "2026-10"


@lru_cache(maxsize=1)
def _published() -> dict[str, Any]:
    content = gzip.decompress(Path(__file__).with_name(f"admin_{VERSION}.json.gz").read_bytes())
    return msgspec.json.decode(content, type=dict[str, Any])


@lru_cache(maxsize=1)
def admin_schema() -> GraphQLSchema:
    """Return the whole schema."""
    from graphql import build_client_schema

    # Not validated: Shopify's own schema breaks a rule of the specification (deprecated fields of interfaces).
    return build_client_schema(_published()["schema"], assume_valid=True)


@lru_cache(maxsize=1)
def access_scopes() -> dict[str, frozenset[str]]:
    """Return the scopes, any one of which opens a type (`Order`) or a field (`Location.name`); others need none."""
    return {name: frozenset(scopes) for name, scopes in _published()["scopes"].items()}
