"""One folder an external system. Adding a provider is adding a folder: see docs/add-a-provider.md."""
