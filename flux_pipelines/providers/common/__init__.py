"""What several providers share; no provider, so that no registry finds it."""
