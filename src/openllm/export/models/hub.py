# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""Models to and from the Hugging Face Hub, over `huggingface_hub`.

The Hub is asked what it holds and told what to commit through that library. Files are downloaded
over plain HTTP by `core/download.py`, which resumes and verifies them. Only the endpoint
(`HF_ENDPOINT`) and the storage it names are contacted.
"""

import contextlib
import hashlib
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openllm import __version__
from openllm.core.download import cache_folder, download
from openllm.core.errors import DownloadError, OpenLLMError, StorageError, UploadError, UsageError
from openllm.core.files import locked
from openllm.core.log import console, say, warn
from openllm.core.plugins import require
from openllm.export.models.zoo import valid_name

LARGE = 10_000_000
"""Bytes; larger files are uploaded one by one, so that an interrupted upload goes on after them."""
RESERVE = 100_000_000
"""Bytes to leave free on the disk."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; large ones have a SHA-256, others the SHA-1 of a git object."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True)
class Repository:
    """What a repository holds at one commit."""

    name: str
    commit: str
    files: dict[str, RemoteFile]


def endpoint() -> str:
    """Address of the Hub: `HF_ENDPOINT`, else the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def _library() -> Any:
    """The library, which is not to report what else is installed or who calls it."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when it is first imported
    return require("huggingface_hub")


def _api() -> Any:
    return _library().HfApi(
        endpoint=endpoint(),
        library_name="openllm",
        library_version=__version__,
        token=_token() or False,
    )


def _kinds() -> Any:
    """The library's errors."""
    _library()
    return require("huggingface_hub.errors")


def _token() -> str | None:
    """`HF_TOKEN`, or what `hf auth login` keeps."""
    return _library().get_token()


def check_repository_name(repo: str, *, owner: bool) -> None:
    """Refuse what is not `OWNER/NAME`, or, unless `owner`, `NAME`.

    Raises:
        UsageError: it is not.
    """
    if not valid_name(repo) or (owner and "/" not in repo):
        raise UsageError(f"'{repo}' is not a repository of the Hub; give OWNER/NAME")


@contextlib.contextmanager
def _errors(repo: str, error: type[OpenLLMError]) -> Iterator[None]:
    """Turn the library's errors into one message each."""
    kinds = _kinds()
    try:
        yield
    except kinds.OfflineModeIsEnabled:
        raise error("HF_HUB_OFFLINE is set; unset it to reach the Hub") from None
    except kinds.HfHubHTTPError as problem:
        raise error(_refusal(repo, kinds, problem)) from problem
    except (kinds.HTTPError, ConnectionError, TimeoutError) as problem:  # the latter two of Xet
        raise error(
            f"{endpoint()} or its storage cannot be reached ({problem}); check the network, then "
            "repeat the command: what was transferred is not transferred again"
        ) from problem
    except PermissionError as problem:
        if problem.errno is not None:  # of this machine
            raise
        raise error(f"the storage of {endpoint()} refuses your token ({problem}); renew it") from (
            problem
        )
    except (RuntimeError, ValueError) as problem:  # of a transfer, with or without its cause
        cause = problem.__cause__
        if isinstance(cause, kinds.HfHubHTTPError):
            raise error(_refusal(repo, kinds, cause)) from problem
        raise error(
            f"{repo}: {' '.join(str(cause or problem).split())}; mend it, then repeat the command: "
            "what was transferred is not transferred again"
        ) from problem


def _refusal(repo: str, kinds: Any, problem: Any) -> str:
    """What the Hub's refusal means, and what to do."""
    status = problem.response.status_code
    login = "log in with 'hf auth login', or set HF_TOKEN"
    if isinstance(problem, kinds.GatedRepoError):
        return (
            f"{repo} is gated: accept its terms on {endpoint()}/{repo} with the account of your "
            f"token, then repeat the command ({login})"
        )
    if isinstance(problem, kinds.RevisionNotFoundError):
        return f"{repo} has no such revision; see {endpoint()}/{repo}/commits/main"
    if status == 401:
        what = "refuses your token; it is wrong, has expired, or" if _token() else "wants a token:"
        return f"{endpoint()} {what} {repo} is private or does not exist; {login}"
    if isinstance(problem, kinds.RepositoryNotFoundError) or status == 404:
        return (
            f"there is no repository {repo} on {endpoint()} that you may see; check its name, and "
            f"if it is private, {login}"
        )
    if status == 403:
        return (
            f"your token may not do this with {repo}; create one that may write there on "
            f"{endpoint()}/settings/tokens, and {login}"
        )
    said = " ".join(str(problem.server_message or problem).split())[:300]
    return f"{endpoint()} answered with HTTP {status} for {repo}: {said}; repeat the command later"


def read_repository(repo: str, revision: str | None = None) -> Repository:
    """Ask the Hub what a model repository holds.

    Args:
        repo: `OWNER/NAME`.
        revision: branch, tag or commit; None: the default branch.

    Raises:
        DownloadError: there is none, it may not be read, or the Hub cannot be reached.
    """
    check_repository_name(repo, owner=False)
    with _errors(repo, DownloadError):
        api = _api()
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=30)
        if info.gated:  # its list of files is public, the files are not
            api.auth_check(repo)
    files = {}
    for file in info.siblings or []:
        size = file.lfs.size if file.lfs else file.size
        if size is None or info.sha is None:
            raise DownloadError(f"{repo}: the Hub does not tell the size of {file.rfilename}")
        sha256 = file.lfs.sha256 if file.lfs else None
        files[file.rfilename] = RemoteFile(file.rfilename, size, sha256, file.blob_id)
    return Repository(repo, info.sha, files)


@contextlib.contextmanager
def downloaded(repository: Repository, names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Download files of a repository; yields name -> verified file.

    They are kept in the cache, to resume from there, and removed once the caller has taken them
    over without an error.

    Raises:
        DownloadError: refused, or the content has another digest than the Hub says.
        StorageError: the disk is full.
    """
    cache = cache_folder() / "hub" / repository.name.replace("/", "--")
    waiting = f"waiting for another command that downloads {repository.name}"
    with locked(cache.parent / f".{cache.name}.lock", waiting):
        _check_space(repository, names, cache)
        token = _token()
        files = {}
        for number, name in enumerate(names, 1):
            say(f"{number} of {len(names)}: {name}")
            files[name] = _fetch(repository, repository.files[name], cache, token)
        yield files
        shutil.rmtree(cache)


def _check_space(repository: Repository, names: Sequence[str], cache: Path) -> None:
    """Refuse before the first byte what the disk cannot hold."""
    wanted = sum(repository.files[name].size for name in names)
    kept = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    free = shutil.disk_usage(cache.parent).free
    if wanted - kept + RESERVE > free:
        raise StorageError(
            f"{repository.name} needs {wanted / 1e9:,.1f} GB, but only {free / 1e9:,.1f} GB are "
            f"free in {cache.parent}; free some space, or set OPENLLM_CACHE to another disk"
        )


def _fetch(repository: Repository, file: RemoteFile, cache: Path, token: str | None) -> Path:
    """Download a file and verify it; files are kept under their digest, not their name."""
    url = _library().hf_hub_url(
        repository.name, file.name, revision=repository.commit, endpoint=endpoint()
    )
    digest = hashlib.sha256(f"{file.sha256} {file.git_sha1} {file.name}".encode()).hexdigest()
    folder, size = cache / digest[:32], file.size or None  # None: an empty file has to be made
    path = download(url, folder, size=size, sha256=file.sha256, token=token)
    if file.sha256 is None and _git_sha1(path) != file.git_sha1:
        path.unlink()
        raise DownloadError(
            f"{url}: the content does not have the digest that the Hub states; repeat the command "
            "later"
        )
    return path


def _git_sha1(path: Path) -> str:
    """The name of a file's content in git."""
    data = path.read_bytes()
    head = f"blob {len(data)}\0".encode()
    return hashlib.sha1(head + data, usedforsecurity=False).hexdigest()


def push(
    files: Mapping[str, Path],
    repo: str,
    *,
    public: bool = False,
    revision: str | None = None,
    message: str = "Upload model",
) -> str:
    """Upload files to a model repository, created if there is none; returns its address.

    Content that the Hub has already is not sent again, so repeating an interrupted call resumes it.
    Other files of the repository stay.

    Args:
        files: name in the repository -> the file; `export/models/safety.py` has accepted them.
        repo: `OWNER/NAME`.
        public: of a new repository; an existing one must be as this says.
        revision: branch, created if there is none; None: main.
        message: of the commit.

    Raises:
        UploadError: refused, or the Hub cannot be reached.
    """
    check_repository_name(repo, owner=True)
    if _token() is None:
        raise UploadError("there is no Hub token; log in with 'hf auth login', or set HF_TOKEN")
    hub = _library()
    if not console().is_terminal:
        require("huggingface_hub.utils").disable_progress_bars()
    with _errors(repo, UploadError), warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        api = _api()
        _open_repository(api, repo, public=public)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        additions = [hub.CommitOperationAdd(name, str(path)) for name, path in files.items()]
        for number, addition in enumerate(additions, 1):
            if addition.upload_info.size > LARGE:
                say(f"{number} of {len(additions)}: {addition.path_in_repo}")
                api.preupload_lfs_files(repo, [addition], revision=revision, free_memory=False)
        try:
            api.create_commit(repo, additions, commit_message=message, revision=revision)
        finally:
            for note in (note for note in notes if note.category is UserWarning):
                warn(" ".join(str(note.message).split()))
    return f"{endpoint()}/{repo}" + (f"/tree/{revision}" if revision else "")


def _open_repository(api: Any, repo: str, *, public: bool) -> None:
    """Create the repository, or make sure that the one there is as public as it should be."""
    kinds = _kinds()
    try:
        private = api.model_info(repo, timeout=30).private
    except kinds.RepositoryNotFoundError:
        api.create_repo(repo, private=not public)
        return
    if private == public:
        there = "private" if private else "public"
        fix = "omit --public" if public else "add --public to publish the model there"
        raise UploadError(
            f"{repo} exists and is {there}; {fix}, or change it on {endpoint()}/{repo}/settings"
        )
