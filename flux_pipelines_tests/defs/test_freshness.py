"""The watch over the version of a provider's API that Flux speaks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import dagster as dg
import httpx
import pytest
import time_machine

from flux_pipelines.connections import lifecycle
from flux_pipelines.defs import freshness, names
from flux_pipelines.domain.errors import FluxError
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.runtime import Runtime
from flux_pipelines_tests.defs.conftest import END_DAY, Home

SQUARE = all_providers()["square"]


@pytest.mark.parametrize(
    ("today", "passed", "left"),
    [("2027-05-31", True, 123), ("2027-06-03", True, 120), ("2027-06-04", False, 119), ("2027-10-02", False, -1)],
)
def test_a_version_whose_support_ends_is_told_months_ahead(home: Home, today: str, passed: bool, left: int) -> None:
    home.connect("sakura")
    spec = replace(SQUARE, sunset=date(2027, 10, 1))
    checks, sensor = freshness.watch(spec)
    assert {check.check_key.name for check in checks} >= {freshness.VERSION_SUPPORTED}
    with time_machine.travel(datetime.fromisoformat(today).replace(tzinfo=UTC), tick=False):
        ticked = home.tick(sensor)
    (found,) = [one for one in ticked.asset_events if one.check_name == freshness.VERSION_SUPPORTED]  # type: ignore[union-attr]
    assert found.passed is passed
    told = {name: value.value for name, value in found.metadata.items()}
    assert told == {"API version": spec.api_version, "supported until": "2027-10-01", "days left": left}


def test_a_provider_that_fails_and_a_permission_that_is_lost_are_told(changing_home: Home) -> None:
    (key,) = changing_home.connect("sakura")
    url = changing_home.sandbox.url

    def look() -> dict[str, dg.AssetCheckEvaluation]:
        _, sensor = freshness.watch(SQUARE)
        return {one.check_name: one for one in changing_home.tick(sensor).asset_events}  # type: ignore[union-attr,misc]

    def told() -> str:
        found = look()[freshness.PROVIDER_ANSWERS]
        assert not found.passed
        return str(found.metadata["trouble"].value)

    def sync() -> bool:
        return changing_home.sync((key, END_DAY), (key, END_DAY)).success

    assert sync()
    assert look()[freshness.PROVIDER_ANSWERS].passed
    httpx.post(f"{url}/sandbox/faults", json={"faults": "error500=1"}).raise_for_status()
    with Runtime(changing_home.runtime.settings, patient=False) as another, pytest.raises(FluxError):
        lifecycle.test_connection(another, key)
    assert "No answer" in told()
    httpx.post(f"{url}/sandbox/faults", json={"faults": ""}).raise_for_status()
    assert sync()
    assert look()[freshness.PROVIDER_ANSWERS].passed, "it mends itself"

    httpx.post(
        f"{url}/sandbox/tokens/scopes", json={"merchant": "sakura", "remove": ["ORDERS_READ"]}
    ).raise_for_status()
    assert not sync()
    assert "Permission lost" in told()


def test_only_versions_with_an_end_are_watched() -> None:
    for spec in names.sources():
        checks, _ = freshness.watch(spec)
        assert (freshness.VERSION_SUPPORTED in {check.check_key.name for check in checks}) == (spec.sunset is not None)
    assert any(spec.sunset is not None for spec in names.sources())
