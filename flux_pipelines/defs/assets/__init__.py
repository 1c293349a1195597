"""What is materialised: raw records, providers' tables, core tables, finance, forecasts, mapping."""
