"""Flux Pipelines: orders, payments and demand of restaurants and shops, kept in step by Dagster."""

__version__ = "0.1.0"
