"""Opens the sockets that the project's own servers answer on."""

from __future__ import annotations

import socket

from flux_pipelines.domain.errors import ConfigurationError

#: Where `flux sandbox` answers unless told otherwise.
SANDBOX_PORT = 8411


def listen(what: str, host: str, port: int) -> socket.socket:
    """Bind a listening socket.

    Args:
        what: the server, for the error (`the gateway`).
        host: the address.
        port: 0 for any free one.

    Raises:
        ConfigurationError: the address or the port cannot be used.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(
            f"{what} cannot listen on {host}:{port}: {error}", next_step="Choose another --port."
        ) from error
    listener.listen(1024)
    return listener
