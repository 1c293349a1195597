"""Pure rules of the business: money, business days, table contracts, errors. No I/O, no Dagster."""
