"""A server on this machine that answers as the Hub does, and its faults; and a process that asks it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from safetensors.torch import save
from torch import Tensor

DEAD = "http://127.0.0.1:9"
"""An address where nothing listens."""

_INFO = re.compile(
    r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>.+?)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?"
)
_FILE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_LARGE = (".safetensors", ".bin", ".gguf")


class Said(NamedTuple):
    code: int
    out: str
    err: str


class Repository(NamedTuple):
    refs: dict[str, str]
    commits: dict[str, dict[str, bytes]]


@dataclass
class Hub:
    """What the server holds. `faults`: what a repository answers in place of its files."""

    url: str = ""
    cdn: str = ""
    """Another address, where the large files are: redirects to it are told from those within the Hub."""
    repos: dict[str, Repository] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    """Repositories that are no models, as `datasets/owner/name`."""
    faults: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    """How often a download of a file (by its hash) still breaks off half-way."""

    def add(self, repo: str, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Put files under a branch or tag. Its commit is returned."""
        text = repr((repo, ref, sorted(files.items())))
        commit = hashlib.sha1(text.encode()).hexdigest()
        known = self.repos.setdefault(repo, Repository({}, {}))
        known.refs[ref] = commit
        known.commits[commit] = dict(files)
        return commit

    def blob(self, sha256: str) -> bytes | None:
        every = (data for repo in self.repos.values() for files in repo.commits.values() for data in files.values())
        return next((data for data in every if hashlib.sha256(data).hexdigest() == sha256), None)


def model(tensors: Mapping[str, Tensor], **files: str) -> dict[str, bytes]:
    """The files of a model in one safetensors file, with a config and others."""
    data = {"model.safetensors": save(dict(tensors)), "config.json": b'{"model_type": "tiny"}'}
    return data | {name: text.encode() for name, text in files.items()}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at `hub.url` for as long as the block runs. It listens on 127.0.0.1 only."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=[0.05]) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = True
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class Asker:
    """Runs Python in fresh processes that know no other Hub than the given one, and a cache of their own."""

    def __init__(self, folder: Path, endpoint: str = DEAD) -> None:
        self.here = folder / "work"
        self.cache = folder / "home" / "hub"
        self.here.mkdir(parents=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        self.environment = {
            **kept,
            "HF_HOME": str(folder / "home"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_ETAG_TIMEOUT": "2",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "COLUMNS": "200",
        }

    def cuvee(self, *arguments: object, **environment: str) -> Said:
        return self.run("-m", "cuvee", *arguments, **environment)

    def resolve(self, *references: str, **environment: str) -> dict[str, str]:
        """What `resolve` gives for each: a folder, or the message of its CuveeError. All in one process."""
        said = self.run("-c", _RESOLVE, *references, **environment)
        assert said.code == 0, said.err
        found: dict[str, str] = json.loads(said.out)
        return found

    def run(self, *arguments: object, limit: str = "", **environment: str) -> Said:
        command = [sys.executable, *map(str, arguments)]
        if limit:
            command = ["sh", "-c", f'ulimit -f {limit}; exec "$@"', "sh", *command]
        found = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.here,
            env=self.environment | environment,
        )
        return Said(found.returncode, found.stdout, found.stderr)


_RESOLVE = """
import json, sys
from cuvee.core import CuveeError
from cuvee.store.hub import resolve

def told(reference):
    try:
        return str(resolve(reference))
    except CuveeError as error:
        return str(error)

print(json.dumps({reference: told(reference) for reference in sys.argv[1:]}))
"""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if path.startswith("/cdn/"):
            return self._send_blob(path.removeprefix("/cdn/"))
        found = _INFO.fullmatch(path)
        if found is not None:
            return self._send_info(found["kind"], found["repo"], found["what"], found["revision"])
        found = _FILE.fullmatch(path)
        if found is not None:
            return self._send_file(found["repo"], found["revision"], found["file"])
        return self._refuse(404, "no such page")

    def _send_info(self, kind: str, repo: str, what: str | None, revision: str | None) -> None:
        fault = self.hub.faults.get(repo)
        if repo in self.hub.moved:
            return self._send(307, b"", {"Location": self.path.replace(f"/{repo}", f"/{self.hub.moved[repo]}", 1)})
        if kind != "models":
            if f"{kind}/{repo}" in self.hub.others:
                return self._send_json({"id": repo, "siblings": []})
            return self._refuse(401, "Repository not found", "RepoNotFound")
        if fault == "silent":
            time.sleep(4)  # longer than an asker waits
        if fault == "page":
            return self._send(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
        if fault == "token":
            return self._refuse(401, "Invalid credentials in Authorization header")
        if fault == "limit":
            return self._refuse(429, "Too many requests", None, {"Retry-After": "37"})
        if fault == "fault":
            return self._refuse(503, "Service unavailable")
        known = self.hub.repos.get(repo)
        if known is None:
            return self._refuse(401, "Repository not found", "RepoNotFound")
        commit = known.refs.get(revision or "main", revision)
        files = known.commits.get(commit or "")
        if files is None:
            return self._refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if what == "tree":
            return self._send_json([self._entry(name, data) for name, data in files.items()])
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        return self._send_json({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings})

    def _send_file(self, repo: str, revision: str, file: str) -> None:
        if self.hub.faults.get(repo) == "gated":
            return self._refuse(401, "Access to this model is restricted.", "GatedRepo")
        if repo in self.hub.moved:
            return self._send(307, b"", {"Location": self.path.replace(f"/{repo}", f"/{self.hub.moved[repo]}", 1)})
        known = self.hub.repos.get(repo)
        commit = known.refs.get(revision, revision) if known else ""
        data = known.commits.get(commit, {}).get(file) if known else None
        if data is None:
            return self._refuse(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not file.endswith(_LARGE):
            return self._send(200, data, {**headers, "ETag": f'"{_git(data)}"'})
        sha256 = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{sha256}"'}
        return self._send(302, b"", {**headers, "Location": f"{self.hub.cdn}/cdn/{sha256}"})

    def _send_blob(self, sha256: str) -> None:
        data = self.hub.blob(sha256)
        if data is None:
            return self._refuse(404, "no such blob")
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        headers = {"ETag": f'"{sha256}"', "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        if self.command == "GET" and self.hub.broken.get(sha256, 0) > 0:
            self.hub.broken[sha256] -= 1
            self._head(206 if start else 200, len(data) - start, {"ETag": headers["ETag"]})
            self.wfile.write(data[start : max(start, len(data) // 2)])
            self.wfile.flush()
            self.close_connection = True
            return None
        return self._send(206, data[start:], headers) if start else self._send(200, data, {"ETag": headers["ETag"]})

    @staticmethod
    def _entry(name: str, data: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": _git(data)}
        if name.endswith(_LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def _refuse(
        self, status: int, told: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        given = {"X-Error-Message": told, "Content-Type": "application/json", **(headers or {})}
        self._send(status, json.dumps({"error": told}).encode(), given | ({"X-Error-Code": code} if code else {}))

    def _send_json(self, data: object) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, len(data), headers)
        if self.command == "GET":
            self.wfile.write(data)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
