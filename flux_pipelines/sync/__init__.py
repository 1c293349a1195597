"""The engine: fetches orders day by day, proves them complete, and normalises them. No Dagster.

- `orders.py`: a connection's orders of many business dates into raw partitions; adaptive parallel windows.
- `proof.py`: the second, independent query that confirms a partition.
- `normalise.py`: raw partitions to rows of the `transactions` contract, through the provider's SQL.
- `plan.py`: what a backfill will cost, before it runs.
- `records.py`: what the above hand over.
"""
