"""The lake: raw orders as received, Delta tables, SQL over both. Local folder or S3; knows no Dagster.

Import the module that is needed (`store`, `raw`, `delta`, `sql`, `quarantine`): some of them load heavy libraries.
"""
