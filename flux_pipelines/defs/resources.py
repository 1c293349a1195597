"""What the assets use: the opened rooms, and the forecast endpoint. Nothing here has a secret that the UI could show.

Each provider's own resource is in its folder (`providers/square/resource.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import PrivateAttr

from flux_pipelines.domain.partition import Partition

if TYPE_CHECKING:
    from flux_pipelines.forecaster.client import DemandEndpoint
    from flux_pipelines.runtime import Runtime


#: Told of each partition that has landed.
Progress = Callable[[Partition], None]


class FluxResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Flux's rooms: lake, state, transport and providers' clients, as the `FLUX_` settings say.

    Opened when first used and closed with the run, so that loading the code location touches nothing.
    """

    _runtime: Runtime | None = PrivateAttr(default=None)
    _progress: Progress | None = PrivateAttr(default=None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def runtime(self) -> Runtime:
        """The rooms, opened now if they were not."""
        return self._open(patient=True)

    @property
    def sensor_runtime(self) -> Runtime:
        """The rooms for a sensor or schedule: calls that fail are given up within seconds, for the next tick."""
        return self._open(patient=False)

    def _open(self, *, patient: bool) -> Runtime:
        from flux_pipelines.runtime import Runtime

        with self._lock:
            if self._runtime is None:
                self._runtime = Runtime(patient=patient)
            return self._runtime

    def landed(self, partition: Partition) -> None:
        """Tell whoever waits for this run that a partition has landed."""
        if self._progress is not None:
            self._progress(partition)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[FluxResource]:  # noqa: ARG002
        """Lend the resource to a run and close what the run opened."""
        try:
            yield self
        finally:
            self.close()

    def close(self) -> None:
        """Release what was opened."""
        with self._lock:
            opened, self._runtime = self._runtime, None
        if opened is not None:
            opened.close()


class SageMakerResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The SageMaker endpoint that forecasts demand, with its retries, as `FLUX_FORECAST_ENDPOINT` and `FLUX_FORECAST_URL` say.

    AWS credentials are boto3's own: environment, profile or role.
    """

    def of(self, runtime: Runtime) -> DemandEndpoint:
        """Return the endpoint that opened rooms use; it is closed with them."""
        return runtime.demand_endpoint

    @contextmanager
    def client(self) -> Generator[DemandEndpoint]:
        """Open the endpoint for a `with` block."""
        from flux_pipelines.runtime import Runtime

        with Runtime() as runtime:
            yield self.of(runtime)


def bound_resource(runtime: Runtime, progress: Progress | None = None) -> dg.ResourceDefinition:
    """Return the resource around rooms that somebody else opened and will close: the command line's, a test's."""
    resource = FluxResource()
    resource._runtime, resource._progress = runtime, progress
    return dg.ResourceDefinition.hardcoded_resource(resource)
