"""Writing to other systems what the outbox holds, each effect once."""

from flux_pipelines.effects.dispatch import Dispatched, Found, Sent, Sink, dispatch

__all__ = ["Dispatched", "Found", "Sent", "Sink", "dispatch"]
