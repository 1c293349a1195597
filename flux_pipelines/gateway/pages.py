"""The pages that people use: connections, one connection, disconnecting."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
