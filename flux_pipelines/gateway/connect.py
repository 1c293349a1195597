"""Connecting an account in a browser: the form, the way to the provider's consent page, and the way back."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
