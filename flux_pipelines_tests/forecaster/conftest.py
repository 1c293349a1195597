"""One real forecaster server for all tests of this folder, and histories to ask it about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal

import pytest

from flux_pipelines.forecaster.embedded import EmbeddedForecaster
from flux_pipelines.forecaster.items import Item, ItemHistory

ENDPOINT = "flux-demand"
#: Small, so that tests can fill it; callers with retries still get everything.
QUEUE = 4
AS_OF = date(2025, 3, 31)


@pytest.fixture(scope="session")
def forecaster() -> Iterator[EmbeddedForecaster]:
    with EmbeddedForecaster([ENDPOINT], queue=QUEUE) as server:
        yield server


@pytest.fixture(autouse=True)
def no_aws_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


def history(product: str = "latte", *, days: int = 70, as_of: date = AS_OF, closed_last: int = 0) -> ItemHistory:
    """A weekly pattern; `closed_last` days before and on `as_of` are not known."""
    first = as_of - timedelta(days=days - 1)
    points = [
        (first + timedelta(days=n), Decimal(10 + 3 * (n % 7) + n % 2) + Decimal("0.5"))
        for n in range(days - closed_last)
    ]
    return ItemHistory(Item("square:acme", "acme", "L1", product, product.title()), as_of, points)
