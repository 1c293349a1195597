"""A lease is kept by a thread that prolongs it while its holder is at work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from flux_pipelines.domain.errors import FluxError

_log = logging.getLogger(__name__)


@contextmanager
def heartbeat(prolong: Callable[[], object], length: timedelta, subject: str) -> Iterator[None]:
    """Prolong a lease every third of its length, for a `with` block.

    Args:
        prolong: does it once.
        length: the lease's.
        subject: whose it is, for the log: `square:acme: the token lease`.

    """
    done = threading.Event()

    def beat() -> None:
        while not done.wait(length.total_seconds() / 3):
            try:
                prolong()
            except FluxError as error:
                _log.warning("%s could not be prolonged: %s", subject, error.what)

    thread = threading.Thread(target=beat, name="flux-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
