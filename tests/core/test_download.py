# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Downloads from a local server that misbehaves in every way a real one does."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from openllm.core.download import cache_folder, download
from openllm.core.errors import DownloadError, StorageError

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server:
    """Serves BODY; `plan` says how to treat each request, its last entry all later ones."""

    def __init__(self) -> None:
        self.plan = ["well"]
        self.ranges: list[str | None] = []
        self.validators: list[str | None] = []
        self.etag = ""
        self.tokens: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.tokens.append((self.path, self.headers["Authorization"]))
                server.ranges.append(self.headers["Range"])
                act = server.plan[min(len(server.ranges), len(server.plan)) - 1]
                server.answer(self, act)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/file.bin"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, act: str) -> None:
        start = 0
        if act.isdigit():
            request.send_error(int(act))
            return
        if act == "moved":
            request.send_response(302)
            request.send_header("Location", self.url.replace("file.bin", "store/file.bin"))
            request.end_headers()
            return
        body = BODY[::-1] if act == "wrong" else BODY
        if request.headers["Range"] and act != "ignore range":
            start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                request.send_error(416)
                return
            request.send_response(206)
            self.validators.append(request.headers["If-Range"])
            shift = 1 if act == "shifted range" else 0
            request.send_header("Content-Range", f"bytes {start + shift}-{len(body) - 1}/*")
            start += shift
        else:
            request.send_response(200)
        if self.etag:
            request.send_header("ETag", self.etag)
        rest = body[start:]
        if act != "truncate, no length":
            request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        request.wfile.write(rest[: len(rest) // 2] if act.startswith("truncate") else rest)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def fetch(server: Server, folder, **options):
    options = {"size": len(BODY), "sha256": SHA256, "pause": 0.01, **options}
    return download(server.url, folder, **options)


def test_a_plain_download_is_kept_and_not_repeated(server, tmp_path):
    path = fetch(server, tmp_path / "new" / "folder")
    assert path.name == "file.bin" and path.read_bytes() == BODY
    assert fetch(server, path.parent) == path
    assert server.ranges == [None]
    assert [item.name for item in path.parent.iterdir()] == ["file.bin"]


def test_a_truncated_download_is_resumed(server, tmp_path):
    server.plan = ["truncate", "truncate", "well"]
    assert fetch(server, tmp_path).read_bytes() == BODY
    half, rest = len(BODY) // 2, len(BODY) - len(BODY) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + rest // 2}-"]


def test_truncation_shows_by_the_size_where_the_server_gives_no_length(server, tmp_path):
    server.plan = ["truncate, no length", "well"]
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.ranges[1] == f"bytes={len(BODY) // 2}-"


def test_a_later_call_goes_on_where_the_first_gave_up(server, tmp_path):
    server.plan = ["truncate"]
    with pytest.raises(DownloadError, match="gave up after 2 attempts"):
        fetch(server, tmp_path, attempts=2)
    assert [item.name for item in tmp_path.iterdir()] == ["file.bin.part"]
    server.plan = ["well"]
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.ranges[-1] is not None


@pytest.mark.parametrize("act", ["ignore range", "shifted range"])
def test_a_server_that_cannot_resume_starts_over(server, tmp_path, act):
    server.plan = ["truncate", act, "ignore range"]
    assert fetch(server, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("code", ["500", "503", "429"])
def test_passing_failures_are_retried(server, tmp_path, code):
    server.plan = [code, code, "well"]
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert len(server.ranges) == 3


@pytest.mark.parametrize("code", ["404", "403", "410"])
def test_lasting_failures_are_not(server, tmp_path, code):
    server.plan = [code]
    with pytest.raises(DownloadError, match=f"HTTP {code}.*check the address"):
        fetch(server, tmp_path)
    assert len(server.ranges) == 1


def test_wrong_content_is_never_kept(server, tmp_path):
    server.plan = ["wrong"]
    with pytest.raises(DownloadError, match="expected size and checksum"):
        fetch(server, tmp_path, attempts=3)
    assert list(tmp_path.iterdir()) == [] and server.ranges == [None] * 3
    server.plan = ["wrong"] * 4 + ["well"]
    assert fetch(server, tmp_path).read_bytes() == BODY


def test_a_part_of_another_file_is_thrown_away(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.ranges == ["bytes=1000-", None]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(BODY + b"x")
    assert fetch(server, tmp_path, size=None).read_bytes() == BODY
    assert server.ranges == [f"bytes={len(BODY) + 1}-", None]


def test_without_a_checksum_only_the_same_version_is_resumed(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"of some earlier day")
    server.plan = ["truncate", "truncate", "well"]
    assert fetch(server, tmp_path, size=None, sha256=None).read_bytes() == BODY
    assert server.ranges == [None] * 3, "the server names no version"
    (tmp_path / "file.bin").unlink()
    server.ranges.clear()
    server.etag = '"v1"'
    assert fetch(server, tmp_path, size=None, sha256=None).read_bytes() == BODY
    assert server.ranges[0] is None and server.ranges[1] is not None
    assert server.validators == ['"v1"', '"v1"']


def test_a_shifted_answer_is_not_mistaken_for_the_file(server, tmp_path):
    server.plan = ["truncate", "shifted range", "well"]
    server.etag = '"v1"'
    assert fetch(server, tmp_path, size=None, sha256=None).read_bytes() == BODY
    assert server.ranges[2] is None


def test_a_cached_file_that_changed_is_fetched_again(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"damaged")
    assert fetch(server, tmp_path).read_bytes() == BODY


def test_a_token_is_not_sent_to_where_a_server_redirects(server, tmp_path):
    server.plan = ["moved", "well"]
    assert fetch(server, tmp_path, token="secret").read_bytes() == BODY
    assert server.tokens == [("/file.bin", "Bearer secret"), ("/store/file.bin", None)]


def test_nobody_there(tmp_path, server):
    server.http.server_close()
    server.http.shutdown()
    with pytest.raises(DownloadError, match="gave up after 2 attempts"):
        fetch(server, tmp_path, attempts=2)


@pytest.mark.parametrize("url", ["ftp://host/file", "file:///etc/hosts", "http://host", "squad"])
def test_only_files_on_the_web(tmp_path, url):
    with pytest.raises(DownloadError, match="not the http or https URL of a file"):
        download(url, tmp_path)


def test_an_unwritable_folder_is_a_storage_error(server, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError):
        fetch(server, tmp_path / "file" / "below")


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENLLM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("OPENLLM_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "openllm")
