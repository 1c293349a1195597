"""`python -m flux_pipelines.cli` is the `flux` command."""

from flux_pipelines.cli import main

main()
