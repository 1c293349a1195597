"""Which syncs people asked for, and which have run."""
