"""A world that behaves like the real providers: their wire protocols, their limits, their failures, and the truth.

A provider's protocol lives in its own folder (`providers/<name>/sandbox*.py`); this room has what they share: the seeded
world, the truth about it, faults, the log of arrivals, and the server. Nothing here is used in production.
"""
