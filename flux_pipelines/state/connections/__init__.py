"""What is known of connections: their state, stores, calendars, mappings, and how far sensors have read."""
