"""Webhook events, from their arrival until a run has dealt with them."""
