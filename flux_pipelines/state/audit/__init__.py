"""What was called and what went wrong: the calls to providers, the alerts of people."""
