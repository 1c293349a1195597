"""What answers over HTTP: sign-in, connections pages, OAuth callbacks, webhooks, machine endpoints, health. No Dagster.

Synchronous handlers run in a pool of threads, because the state database is called synchronously; what every request
passes through is plain ASGI (`guard.py`), so that a webhook costs no more than it must.
"""
