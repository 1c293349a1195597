"""Sales in the lake, as the pipelines put them there, without Dagster."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from flux_pipelines.domain.business_day import known_calendars
from flux_pipelines.domain.tables import TRANSACTIONS
from flux_pipelines.lake.raw import OLDER
from flux_pipelines.providers.registry import provider
from flux_pipelines.runtime import Runtime
from flux_pipelines.sync.context import SyncContext
from flux_pipelines.sync.normalise import Normalisation
from flux_pipelines.sync.windowed import read_windowed


def land(runtime: Runtime, key: str, days: Sequence[date]) -> None:
    """Fetch a connection's business dates: raw orders, and the rows of `transactions` that count on them."""
    connection = runtime.state.connections.get(key)
    spec = provider(connection.provider)
    source = runtime.source(connection)
    try:
        locations = runtime.refresh_locations(connection, source)
        outcomes = list(read_windowed(SyncContext(source, connection, locations, runtime.raw, spec), days))
    finally:
        source.close()
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    manifests = [outcome.manifest for outcome in outcomes if outcome.manifest is not None]
    raw = runtime.raw
    manifests += [one for one in raw.of(OLDER).everything(key).readable if not raw.landed(key, [one.business_date])]
    calendars = known_calendars(runtime.state.locations.list(key), connection.cutoff_hour)
    batches = Normalisation(spec, raw, connection, manifests, calendars).batches()
    counted = (batch.filter(pc.is_in(batch["business_date"], pa.array(days))) for batch in batches)
    rows = pa.RecordBatchReader.from_batches(TRANSACTIONS.arrow_schema(), counted)
    runtime.lake.replace(TRANSACTIONS, rows, [{"connection": key, "business_date": day} for day in days])
