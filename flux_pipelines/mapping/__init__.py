"""Which location is which store, and which product is which, over every provider: suggested here, decided by people."""
