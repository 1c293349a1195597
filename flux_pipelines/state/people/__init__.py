"""Who may do what: sessions, round trips of a sign-in, API tokens, and the record of who was forgotten."""
