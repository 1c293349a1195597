"""The one resource of the assets: the opened rooms. It has no fields, so there is no secret to show in the UI."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import PrivateAttr

if TYPE_CHECKING:
    from flux_pipelines.runtime import Runtime


#: Told of each partition that has landed: connection and business date.
Progress = Callable[[str, date], None]


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
    def hurried_runtime(self) -> Runtime:
        """The rooms for a sensor or schedule: calls that fail are given up within seconds, for the next tick."""
        return self._open(patient=False)

    def _open(self, *, patient: bool) -> Runtime:
        from flux_pipelines.runtime import Runtime

        with self._lock:
            if self._runtime is None:
                self._runtime = Runtime(patient=patient)
            return self._runtime

    def landed(self, connection: str, day: date) -> None:
        """Tell whoever waits for this run that a partition has landed."""
        if self._progress is not None:
            self._progress(connection, day)

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


def lend(runtime: Runtime, progress: Progress | None = None) -> dg.ResourceDefinition:
    """Return the resource around rooms that somebody else opened and will close: the command line's, a test's."""
    resource = FluxResource()
    resource._runtime, resource._progress = runtime, progress
    return dg.ResourceDefinition.hardcoded_resource(resource)
