"""Bunch's OAuth."""

from __future__ import annotations

from flux_pipelines.providers.common.oauth import CodeOAuth, Dialect


class BunchOAuth(CodeOAuth):
    """One app's OAuth client (`OAuthProvider`). Scopes are the app's; only the callback names the merchant."""

    dialect = Dialect(
        "/oauth/v2/authorize",
        "/oauth/v2/token",
        scopes_joined_by=None,
        names_grant=False,
        account="merchant_id",
        refresh="/oauth/v2/refresh",
        ends=("access_token_expiration", "refresh_token_expiration"),
    )
    refresh_repeats = False  # a refresh token works once

    def revoke(self, access_token: str) -> None:
        """Leave it: Bunch has no call for it, the merchant uninstalls the app."""
