"""The one way out to other systems: limit, breaker, retry, authentication, audit. No Dagster."""

from __future__ import annotations


class Transport:
    """Makes the API clients of a process; holds the limiter, the breakers and the audit they share."""
