"""`dagster`, with a webserver that answers this machine's programs and its own pages, and no page of anybody else.

Dagster's webserver runs whatever mutation reaches it: sent by GET, as an image's address or a link is; by a form of any
site; by a page whose name has been made to mean 127.0.0.1 (DNS rebinding). It has no sign-in, so that a browser on the
same machine is all that an attacker needs. `flux up` and `flux demo` start `python -m flux_pipelines.defs.internals.webserver dev`,
which is `dagster dev` but for the webserver: that one is this module again, with a guard before it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import dagster_webserver.app
from dagster._cli import dev
from dagster._cli import main as dagster_command
from dagster_webserver.cli import main as serve
from dagster_webserver.webserver import DagsterWebserver
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flux_pipelines.domain.addresses import is_loopback, origin_of
from flux_pipelines.settings import settings

_MODULE = "flux_pipelines.defs.internals.webserver"
#: Beside Dagster's own policy, so that both hold: what was recorded before text was made inert fetches nothing either.
_POLICY = b"img-src 'self' data: blob:; media-src 'self'; form-action 'self'; frame-ancestors 'self'; object-src 'none'"
_HEADERS = [
    (b"content-security-policy", _POLICY),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """ASGI middleware around everything that Dagster's webserver answers, web sockets included.

    Args:
        app: what it guards.
        pages: the endpoint of the UI's pages: HTML in which there are no data.
        public: the origin under which a reverse proxy shows the UI, beside this machine's own names.

    """

    def __init__(self, app: ASGIApp, pages: Any, public: str | None) -> None:
        self._app = app
        self._pages = pages
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or a handshake, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_guarded)
        elif scope["type"] == "websocket":
            await send(
                {"type": "websocket.close", "code": 1008, "reason": ""}
            )  # before it was accepted: the server says 403
        else:
            status, text = refusal
            await PlainTextResponse(f"{text}\n", status_code=status)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and text for what must not get any further."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self._is_ours(host):
            # A stranger's name that means this machine (DNS rebinding) makes a stranger's page one of this origin.
            return 421, "The Dagster UI does not answer under this name. Behind a reverse proxy, set FLUX_DAGSTER_URL."
        reading = scope["type"] == "websocket" or scope["method"] in ("GET", "HEAD")
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site")  # `none`: typed in, or a bookmark
        ours = origin is None or origin in (f"http://{host}", self._public)
        if not (ours and site in (None, "same-origin", *(("none",) if reading else ()))) and not self._is_link(
            scope, headers
        ):
            return 403, "The Dagster UI answers its own pages only; this request comes from another site."
        if not reading:
            if scope["method"] != "POST":
                return 405, "The Dagster UI is read by GET and told by POST."
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                # What a form can send is sent without asking first; JSON of another site is not.
                return 415, "Send JSON, with `Content-Type: application/json`."
        return None

    def _is_ours(self, host: str) -> bool:
        # Of any port: what comes through a tunnel has the port of its near end, and no stranger's page has these names.
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return is_loopback(name) or (self._public is not None and host == urlsplit(self._public).netloc)

    def _is_link(self, scope: Scope, headers: Headers) -> bool:
        """Tell whether somebody follows a link of another site to a page, in a window of its own."""
        if scope["type"] != "http" or scope["method"] != "GET" or headers.get("origin") is not None:
            return False
        if (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) != ("navigate", "document"):
            return False
        route = next((route for route in scope["app"].routes if route.matches(scope)[0] is not Match.NONE), None)
        return bool(getattr(route, "endpoint", None) == self._pages)


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's webserver behind the guard, whose GraphQL is asked by POST alone."""

    def build_middleware(self) -> list[Middleware]:
        """Put the guard before everything else."""
        url = settings().dagster_url
        public = origin_of(url, "FLUX_DAGSTER_URL") if url else None
        return [Middleware(Guard, self.index_html_endpoint, public), *super().build_middleware()]

    async def graphql_http_endpoint(self, request: Any) -> Any:
        """Answer a question sent by POST, or show the page on which questions are written.

        What an address can carry, every image and every link can ask for: nothing that comes by GET is executed.
        """
        if request.method != "POST" and "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse("Send GraphQL by POST, as JSON.\n", status_code=405, headers={"allow": "POST"})
        return await super().graphql_http_endpoint(request)


def main() -> None:
    """Run `dagster dev` with the guarded webserver, or, as its child, that webserver."""
    if sys.argv[1:2] != ["dev"]:
        dagster_webserver.app.DagsterWebserver = GuardedWebserver  # type: ignore[attr-defined]
        serve()  # type: ignore[no-untyped-call]
        return
    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]

    def start_guarded(parts: Sequence[str], **options: Any) -> Any:
        return start([_MODULE if part == "dagster_webserver" else part for part in parts], **options)

    dev.open_ipc_subprocess = start_guarded  # type: ignore[attr-defined]
    dagster_command()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
