"""An HTTP proxy on loopback that answers for every host of the sample from memory."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from defects import Answer

MISSING = b"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>"
DATE = "Tue, 14 Nov 2023 09:00:00 GMT"
CHUNK = 8192


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: ClassVar[dict[str, Answer]] = {}

    def do_GET(self) -> None:
        """Answer one URL."""
        found = self.answers.get(self.path) or Answer(self.path, MISSING, kind="not-found", status=404)
        self.send_response_only(found.status)
        self.send_header("Date", DATE)
        self.send_header("Server", "Apache")
        charset = f"; charset={found.http_charset}" if found.http_charset else ""
        self.send_header("Content-Type", found.content_type + charset)
        for name, value in found.extra:
            self.send_header(name, value)
        if found.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(found.body)))
        self.end_headers()
        self._write(found)

    def _write(self, found: Answer) -> None:
        if not found.chunked:
            self.wfile.write(found.body)
            return
        for i in range(0, len(found.body), CHUNK):
            piece = found.body[i : i + CHUNK]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args: object) -> None:
        """Say nothing: wget reports."""


def serve(answers: dict[str, Answer]) -> ThreadingHTTPServer:
    """Start the proxy on a free port of loopback, in a thread of its own."""
    handler = type("Handler", (_Handler,), {"answers": answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
