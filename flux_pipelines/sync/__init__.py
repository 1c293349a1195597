"""The engine: reads streams into raw partitions, proves orders complete, and makes rows of them. No Dagster.

- `context.py`: what each of these is given: whose records, of whom, and where and how they are kept.
- `windowed.py`: orders of many business dates; adaptive parallel windows, each date proven by `verification.py`.
- `daily.py`: the other streams: business dates, a snapshot of this hour, or what there is now.
- `changes.py`: what changed in a stream since it was last looked at.
- `normalise.py`: raw orders to rows of the `transactions` contract; `transform.py`: any stream to rows of any other contract.
  Both through the provider's SQL.
- `plan.py`: what a backfill will cost, before it runs.
- `records.py`: what the above hand over.
"""
