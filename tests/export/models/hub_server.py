# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""A small Hub on this machine: the few endpoints that push and pull use, and ways to misbehave."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = {".safetensors", ".gguf", ".bin"}
"""Suffixes that the server keeps in large file storage."""


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@dataclass
class Repo:
    """One repository; `stated` replaces what the server says of a file."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = True
    gated: bool = False
    sha: str = "c" * 40
    stated: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: list[str] = field(default_factory=lambda: ["main"])


class Hub:
    """A running server; `token` is the only one that it accepts."""

    def __init__(self) -> None:
        self.token = "hf_right"
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.plan: dict[str, list[str]] = {}  # part of a path -> what goes wrong, in turn
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self, b"")

            def do_POST(self) -> None:
                hub.answer(self, self.rfile.read(int(self.headers["Content-Length"] or 0)))

            do_PUT = do_POST

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def paths(self, method: str) -> list[str]:
        return [path for verb, path in self.log if verb == method]

    def answer(self, request: Any, body: bytes) -> None:
        path = unquote(urlsplit(request.path).path)
        self.log.append((request.command, path))
        self.headers.append({"path": path, **{k.lower(): v for k, v in request.headers.items()}})
        act = next((acts.pop(0) for part, acts in self.plan.items() if part in path and acts), "")
        if act.isdigit():
            self.refuse(request, int(act))
        elif path.startswith(("/cdn/", "/lfs/")):
            self.storage(request, path, body, act)
        elif request.headers["Authorization"] not in (None, f"Bearer {self.token}"):
            self.refuse(request, 401, error="Invalid username or password.")
        elif path == "/api/validate-yaml":
            self.send(request, {"warnings": [{"message": "empty metadata"}], "errors": []})
        elif path == "/api/repos/create":
            value = json.loads(body)
            name = f"{value['organization']}/{value['name']}"
            private = value.get("private", value.get("visibility") == "private")
            self.repos[name] = Repo(private=private)
            self.send(request, {"url": f"{self.url}/{name}"})
        else:
            self.repository(request, path, body, act)

    def repository(self, request: Any, path: str, body: bytes, act: str) -> None:
        name = "/".join(path.removeprefix("/api/models").split("/")[1:3]).removesuffix(".git")
        repo = self.repos.get(name)
        hidden = repo and repo.private and request.headers["Authorization"] is None
        rest = path.partition(name)[2]
        if repo is None or hidden:
            self.refuse(request, 401 if hidden else 404, "RepoNotFound")
        elif rest == "/auth-check":
            self.refuse(request, 403, "GatedRepo") if repo.gated else self.send(request, {})
        elif rest == "" or rest.startswith("/revision/"):
            if rest and rest.rpartition("/")[2] not in (repo.sha, *repo.branches):
                self.refuse(request, 404, "RevisionNotFound")
            else:
                self.send(request, self.describe(name, repo))
        elif rest.startswith("/resolve/"):
            self.file(request, repo, rest.split("/", 3)[3], act)
        elif rest.startswith("/branch/"):
            repo.branches.append(rest.rpartition("/")[2])
            self.send(request, {})
        elif rest.startswith("/preupload/"):
            files = [self.mode(repo, file) for file in json.loads(body)["files"]]
            self.send(request, {"files": files})
        elif rest == ".git/info/lfs/objects/batch":
            self.send(request, {"objects": list(map(self.action, json.loads(body)["objects"]))})
        elif rest.startswith("/commit/"):
            self.commit(request, name, repo, body)
        else:
            self.refuse(request, 404)

    def describe(self, name: str, repo: Repo) -> dict[str, Any]:
        files = []
        for file, data in repo.files.items():
            facts: dict[str, Any] = {"rfilename": file, "size": len(data), "blobId": git_sha1(data)}
            if PurePosixPath(file).suffix in LARGE:
                sha256 = hashlib.sha256(data).hexdigest()
                facts["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 100}
            files.append(facts | repo.stated.get(file, {}))
        facts = {"id": name, "sha": repo.sha, "private": repo.private}
        return {**facts, "gated": "auto" if repo.gated else False, "siblings": files}

    def file(self, request: Any, repo: Repo, name: str, act: str) -> None:
        data = repo.files.get(name)
        if data is None:
            self.refuse(request, 404, "EntryNotFound")
        elif PurePosixPath(name).suffix in LARGE:
            key = hashlib.sha256(data).hexdigest()
            self.large[key] = data
            request.send_response(302)
            request.send_header("Location", f"{self.url}/cdn/{key}")
            request.send_header("Content-Length", "0")
            request.end_headers()
        else:
            self.data(request, data, act)

    def storage(self, request: Any, path: str, body: bytes, act: str) -> None:
        key = path.rpartition("/")[2]
        if request.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == key
            self.large[key] = body
            self.send(request, {})
        else:
            self.data(request, self.large[key], act)

    def data(self, request: Any, data: bytes, act: str) -> None:
        start = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        data = data[::-1] if act == "wrong" else data
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        rest = data[start:]
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        request.wfile.write(rest[: len(rest) // 2] if act == "cut" else rest)
        request.close_connection = act == "cut"

    def mode(self, repo: Repo, file: dict[str, Any]) -> dict[str, Any]:
        name, data = file["path"], repo.files.get(file["path"])
        large = PurePosixPath(name).suffix in LARGE
        oid = None
        if data is not None:
            oid = hashlib.sha256(data).hexdigest() if large else git_sha1(data)
        mode = "lfs" if large else "regular"
        return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def action(self, item: dict[str, Any]) -> dict[str, Any]:
        facts = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] in self.large:
            return facts
        return {**facts, "actions": {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}}

    def commit(self, request: Any, name: str, repo: Repo, body: bytes) -> None:
        for line in body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                repo.messages.append(value["summary"])
            elif item["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                repo.files[value["path"]] = self.large[value["oid"]]
        url = f"{self.url}/{name}/commit/{repo.sha}"
        self.send(request, {"commitUrl": url, "commitOid": repo.sha, "pullRequestUrl": None})

    def send(self, request: Any, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def refuse(self, request: Any, status: int, code: str = "", *, error: str = "refused") -> None:
        data = json.dumps({"error": error}).encode()
        request.send_response(status)
        if code:
            request.send_header("X-Error-Code", code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
