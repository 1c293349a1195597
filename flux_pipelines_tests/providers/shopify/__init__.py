"""Tests of the Shopify provider."""
