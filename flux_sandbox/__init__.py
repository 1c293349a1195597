"""A world that behaves like the real providers: their wire protocols, their limits, their failures, and the truth.

A provider's protocol is a folder of its own (`flux_sandbox/NAME`, whose `api.py` has `build`); beside the folders is what they
share: the seeded world, the truth about it, faults, the log of arrivals, and the server. Nothing of it is used in production:
Flux finds it as a command by the entry point `flux.commands`, and talks to it over HTTP alone.
"""
