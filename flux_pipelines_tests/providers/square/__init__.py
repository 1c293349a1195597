"""Square beside its orders: streams, their SQL, and their sandbox."""
