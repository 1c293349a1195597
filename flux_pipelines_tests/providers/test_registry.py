"""What a provider declares is there, and is whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flux_pipelines.domain.errors import ConfigurationError
from flux_pipelines.providers.base import Source, WebhookSource, members_of
from flux_pipelines.providers.registry import all_providers
from flux_pipelines.providers.square import PROVIDER


class Half:
    """Some of a client, and some of webhooks."""

    max_locations_per_window = 1
    refused_status = 401

    def locations(self) -> list[object]:
        return []

    def verify(self, request: object) -> None: ...


@pytest.mark.parametrize("name", sorted(all_providers()))
def test_every_provider_is_whole(name: str) -> None:
    spec = all_providers()[name]
    for reference in (spec.source, spec.oauth, spec.login, spec.webhooks):
        if reference is not None:
            assert isinstance(spec.load(reference), type)


@pytest.mark.parametrize(("part", "protocol"), [("source", Source), ("webhooks", WebhookSource)])
def test_what_is_missing_is_told_when_it_is_loaded(part: str, protocol: type) -> None:
    reference = f"{__name__}:Half"
    spec = replace(PROVIDER, **{part: reference})
    with pytest.raises(ConfigurationError, match=f"square is not whole: its {part}") as refused:
        spec.load(reference)
    missing = members_of(protocol) - {"max_locations_per_window", "refused_status", "locations", "verify"}
    assert len(missing) >= 2
    assert refused.value.what.endswith(f"has no {', '.join(sorted(missing))}")
    assert protocol.__name__ in refused.value.next_step
