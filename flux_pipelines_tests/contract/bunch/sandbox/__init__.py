"""Bunch's side of the wire."""
