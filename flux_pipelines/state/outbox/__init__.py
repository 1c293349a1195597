"""Effects on other systems: what is to be written there, what has been, and who is writing."""
