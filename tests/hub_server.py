"""A local server that speaks enough of the Hugging Face hub's protocol to load data sets and models from it.

It serves a folder with repositories as `models/OWNER/NAME/...` and `datasets/OWNER/NAME/...`. Point clients
to it with the environment variable HF_ENDPOINT, which is read when `huggingface_hub` is imported, and give
them an HF_HOME of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<rest>.+)")
_RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<id>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_REST = re.compile(r"(?P<id>[^/]+(?:/[^/]+)?)(?:/(?P<verb>revision|tree|paths-info)/(?P<tail>.+))?")


@contextmanager
def serve(root: Path, aliases: Mapping[str, str] | None = None, failing: Collection[str] = ()) -> Iterator[str]:
    """Serve `root` while the context lasts, and give the address.

    `aliases` are the short names of repositories, as glue for nyu-mll/glue; they are redirected. Of the repositories
    in `failing` the files are answered with 501, for which clients do not ask again, as they do for 500.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, root, dict(aliases or {}), failing))
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, aliases: dict[str, str], failing: Collection[str], *args: Any) -> None:
        self.root, self.aliases, self.failing = root, aliases, failing
        super().__init__(*args)

    def log_message(self, *args: Any) -> None:
        """Tests are quiet."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := _API.fullmatch(path):
            self._api(match["kind"], match["rest"])
        elif match := _RESOLVE.fullmatch(path):
            self._resolve((match["kind"] or "models/").rstrip("/"), match["id"], match["path"])
        else:
            self._missing("EntryNotFound")

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _api(self, kind: str, rest: str) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        match = _REST.fullmatch(rest)
        folder = self._repository(kind, match["id"]) if match else None
        if match is None or folder is None:
            self._missing("RepoNotFound")
        elif match["id"] in self.aliases:
            self._redirect(match["id"])
        elif match["verb"] == "tree":
            _, _, inside = match["tail"].partition("/")
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("true", "1")
            paths = (folder / inside).rglob("*") if recursive else (folder / inside).glob("*")
            self._json([_entry(folder, path) for path in sorted(paths)])
        elif match["verb"] == "paths-info":
            self._json([_entry(folder, folder / path) for path in form["paths"] if (folder / path).exists()])
        else:
            self._json(_repository_info(match["id"], folder))

    def _resolve(self, kind: str, name: str, path: str) -> None:
        folder = self._repository(kind, name)
        if folder is None:
            self._missing("RepoNotFound")
        elif name in self.aliases:
            self._redirect(name)
        elif name in self.failing:
            self._answer(501, b"", {})
        elif not (folder / path).is_file():
            self._missing("EntryNotFound", commit=_commit(folder))
        else:
            content = (folder / path).read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": _commit(folder)}
            self._answer(200, content, {**headers, "Content-Type": "application/octet-stream"})

    def _repository(self, kind: str, name: str) -> Path | None:
        folder = self.root / kind / self.aliases.get(name, name)
        return folder if "/" in self.aliases.get(name, name) and folder.is_dir() else None

    def _redirect(self, name: str) -> None:
        self._answer(307, b"", {"Location": self.path.replace(name, self.aliases[name], 1)})

    def _missing(self, code: str, commit: str = "") -> None:
        self._answer(404, b"", {"X-Error-Code": code, "X-Error-Message": code, "X-Repo-Commit": commit})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if status == 200 else None
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _commit(folder: Path) -> str:
    return hashlib.sha1(str(folder).encode()).hexdigest()


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    oid = hashlib.sha1(name.encode()).hexdigest()
    size = path.stat().st_size if path.is_file() else 0
    return {"type": "file" if path.is_file() else "directory", "oid": oid, "size": size, "path": name}


def _repository_info(name: str, folder: Path) -> dict[str, Any]:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {
        "id": name,
        "sha": _commit(folder),
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": file} for file in files],
    }
