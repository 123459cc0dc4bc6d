"""Labelling in a browser: the page for this machine alone, and the file behind it, which is read for each question and written for each answer.

So whatever else writes to the file between two answers is kept, and to stop at any time loses nothing: all that was labelled is in it.
"""

import hashlib
import http.server
import json
import os
import pathlib
import threading
import urllib.parse
from collections.abc import Callable, Sequence

from research.core.errors import UserError
from research.data.fetch import cache_lock
from research.labelling import table
from research.labelling.page import page

ADDRESS = "127.0.0.1"
LARGEST = 100_000  # bytes of an answer
POLICY = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


class Sheet:
    """A CSV file of labels (research/labelling/table.py), of which several pages and processes may write one label at a time."""

    def __init__(self, path: pathlib.Path, classes: Sequence[str], annotator: str):
        """Raises UserError for a file that is no table of labels of these classes, or has no text."""
        self.path, self.classes, self._annotator = path, classes, annotator
        self._within = threading.Lock()  # for pages of this process; the other for processes, of which a path may be too long to be the name
        self._between = cache_lock(hashlib.sha256(os.fsencode(path.resolve())).hexdigest())
        if not table.read(path, classes):
            raise UserError(f"{path} has no text: give it some lines below the header.")

    def example(self, place: int | None) -> dict:
        """What there is at a place, or at the first without a label; at the place after the last only how many there are."""
        rows = table.read(self.path, self.classes)
        if place is None:
            place = next((i for i, row in enumerate(rows) if not row["label"]), len(rows))
        place = min(place, len(rows))
        here = {name: rows[place][name] for name in ("key", "text", "label")} if place < len(rows) else {}
        return {"place": place, "total": len(rows), "labelled": sum(bool(row["label"]) for row in rows)} | here

    def label(self, key: str, label: str):
        """Gives the text with that key a label, or with "" takes it away. Raises UserError if there is no such key or class."""
        if label and label not in self.classes:
            raise UserError(f"{label!r} is none of {', '.join(self.classes)}.")
        with self._within, self._between:
            rows = table.read(self.path, self.classes)
            row = next((row for row in rows if row["key"] == key), None)
            if row is None:
                raise UserError(f"{self.path} has no text with the key {key!r} any more: load this page again.")
            row |= {"label": label, "confidence": "", "annotator": self._annotator if label else ""}
            table.write(self.path, rows)


class Server(http.server.ThreadingHTTPServer):
    """Serves the page at 127.0.0.1 once `serve_forever` is called. Port 0: any that is free. Raises UserError if the port cannot be had."""

    def __init__(self, sheet: Sheet, port: int):
        self.sheet = sheet
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as e:
            raise UserError(f"port {port} cannot be had ({e}): give another as --port.") from e


class Handler(http.server.BaseHTTPRequestHandler):
    """GET / is the page, GET /example[?place=N] what `Sheet.example` says, POST /label takes {"key": ..., "label": ...}. Else {"error": ...}."""

    server: Server

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        place = urllib.parse.parse_qs(url.query).get("place", [""])[0]
        if not self._is_ours():
            self._tell(403, {"error": "this page is for this machine alone, under the port that it is served at."})
        elif url.path == "/":
            self._send(200, "text/html; charset=utf-8", page(self.server.sheet.path.name, self.server.sheet.classes))
        elif url.path == "/example" and (not place or place.isascii() and place.isdigit()):
            self._attempt(lambda: self.server.sheet.example(int(place) if place else None))
        else:
            self._tell(404, {"error": f"there is no {self.path} here."})

    def do_POST(self):
        size = self.headers.get("Content-Length", "")
        body = self.rfile.read(min(int(size), LARGEST)) if size.isdigit() else b""
        if not self._is_ours() or self.headers.get("Content-Type") != "application/json":  # which no page of another site can send
            self._tell(403, {"error": "labels come from this page alone."})
        elif self.path != "/label":
            self._tell(404, {"error": "there is only /label to send to."})
        else:
            self._attempt(lambda: self._label(body))

    def _label(self, body: bytes) -> dict:
        try:
            key, label = (json.loads(body)[name] for name in ("key", "label"))
        except (ValueError, KeyError, TypeError):
            key = label = None
        if not isinstance(key, str) or not isinstance(label, str):
            raise UserError("a label is sent as JSON, with a key and a label, both of them strings.")
        self.server.sheet.label(key, label)
        return {}

    def _is_ours(self) -> bool:
        """Whether the browser asks for this server by a name of this machine, and not for a page of another site."""
        ours = {f"{name}:{self.server.server_address[1]}" for name in (ADDRESS, "localhost")}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in ours and (origin is None or origin.removeprefix("http://") in ours)

    def _attempt(self, act: Callable[[], dict]):
        try:
            self._tell(200, act())
        except UserError as e:
            self._tell(409, {"error": str(e)})
        except OSError as e:
            self._tell(507, {"error": f"{self.server.sheet.path} cannot be locked ({e}): the label is not kept; mend that and give it again."})

    def _tell(self, status: int, what: dict):
        self._send(status, "application/json", json.dumps(what))

    def _send(self, status: int, kind: str, text: str):
        body = text.encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """What was labelled is in the file: there is nothing to print."""
