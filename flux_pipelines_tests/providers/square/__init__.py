"""Square beside its orders: feeds, their SQL, and their sandbox."""
