"""What runs by itself because something happened: changes at a provider, webhook events, requests of people, closed dates."""
