"""`unmask trace`: a trace of `unmask sim --trace` in the Perfetto UI, offline."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from unmask.report.viewer import trace_server


def trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A trace that `unmask sim --trace FILE` wrote.")],
    port: Annotated[int, typer.Option(help="On this machine; 0 takes any that is free.", min=0, max=65535)] = 9001,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the default browser.")] = False,
) -> None:
    """Serve FILE with the Perfetto UI on this machine until interrupted; needs no network."""
    with trace_server(file, port) as server:
        page = f"http://127.0.0.1:{server.server_port}"
        print(f"{file} at {page}, until Ctrl+C", flush=True)
        if browser:
            webbrowser.open(page)
        server.serve_forever()
