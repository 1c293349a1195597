"""Flux beside its peers and its own floors: speed, latency, memory, import cost, a year's backfill, the rate limit.

`python -m benchmarks [NAME...]` (`make bench ARGS=...`). README.md says what each compares and what was last measured.
"""
