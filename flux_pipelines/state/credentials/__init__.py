"""Whatever is secret: the vault and its keys, the secrets of connections and apps, tokens and who refreshes them."""
