"""Whether the books are right: reports of the provider, payments beside orders, what changed after it was settled."""
