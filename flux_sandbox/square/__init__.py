"""Square's side of the wire over the shared world."""
