"""``http://127.0.0.1:PORT/metrics`` for a Prometheus on the same machine."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edge_tsad.errors import ConfigError
from edge_tsad.files import reason
from edge_tsad.runtime.metrics import CONTENT_TYPE

__all__ = ["MetricsServer"]


class MetricsServer:
    """Serves the newest ``page`` on loopback only, from threads of its own.

    Raises:
        ConfigError: the port is in use or not allowed.
    """

    def __init__(self, port: int) -> None:
        self.page = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            """Answers with the page that is there."""

            timeout = 10

            def do_GET(self) -> None:
                """Send the metrics, or 404 for any other path."""
                page = outer.page if self.path.partition("?")[0] == "/metrics" else None
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(page or b"")))
                self.end_headers()
                self.wfile.write(page or b"")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """A scrape is no event."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as e:
            raise ConfigError(f"service.metrics_port: {port} cannot be used: {reason(e)}") from e
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
