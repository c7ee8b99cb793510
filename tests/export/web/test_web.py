# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-OpenLLM-Commercial
# Copyright (C) 2024-2026 The OpenLLM Authors
"""The page: its tokenizer, its files, its size, and its text in a real browser."""

import hashlib
import http.server
import io
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import REPOSITORY
from tests.tiny import sentences

from openllm.core.errors import CheckpointError, ConfigError, DownloadError, TokenizerError
from openllm.export.onnx.runtime import OnnxModel
from openllm.export.onnx.writer import export_onnx
from openllm.export.web import onnxruntime, writer
from openllm.export.web.onnxruntime import PACKED, SCRIPT, find_runtime, read_pieces, write_pieces
from openllm.export.web.vocabulary import page_vocabulary
from openllm.export.web.writer import PAGE, export_web, open_web, show_verdict
from openllm.text.load import load_tokenizer

ODD = [
    "",
    " ",
    "  two  spaces ",
    "\u2581 mark",
    "<|bos|> <0x41> </think>",
    "\n\n\ttabs",
    "ça été – naïve ☕🙂👩‍👩‍👧",
    "漢字かな交じり文",
    "\ufeffbom \x00 nul",
    "e\u0301 combining \u200d",
    "\ud83d lone",
    "a" * 300,
]


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs Node.js, to run the page's tokenizer without a browser")
    return program


@pytest.fixture
def fake_runtime(tmp_path: Path) -> Path:
    """Files with the names of the runtime's, which is large and not ours."""
    folder = tmp_path / "unpacked" / "package" / "dist"
    folder.mkdir(parents=True)
    for name in (SCRIPT, *PACKED.values()):
        (folder / name).write_text(f"// {name}")
    return tmp_path / "unpacked"


def random_texts(count: int) -> list[str]:
    """Words, spaces, and any characters but surrogates."""
    rng = np.random.default_rng(8)
    ranges = ((32, 127), (160, 0x2FFF), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF), (0, 32))
    shares = (0.7, 0.12, 0.08, 0.05, 0.05)
    return [
        "".join(
            chr(rng.integers(*ranges[kind]))
            for kind in rng.choice(len(ranges), rng.integers(1, 60), p=shares)
        )
        for _ in range(count)
    ]


def test_the_tokenizer_of_the_page_gives_the_ids_of_ours(
    node: str, tokenizer_folder: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    texts = [*ODD, *sentences(50, 9), *random_texts(300)]
    (tmp_path / "in.json").write_text(
        json.dumps({"vocabulary": page_vocabulary(tokenizer_folder), "texts": texts})
    )
    script = f"""
        require({json.dumps(str(PAGE / "tokenizer.js"))});
        const {{ vocabulary, texts }} = JSON.parse(require("fs").readFileSync(0, "utf-8"));
        const tokenizer = new OpenLLM.Tokenizer(vocabulary);
        const ids = texts.map((text) => tokenizer.encode(text));
        console.log(JSON.stringify({{ ids, back: ids.map((one) => tokenizer.decode(one)) }}));
    """
    with open(tmp_path / "in.json") as given_texts:
        done = subprocess.run(
            [node, "-e", script], stdin=given_texts, capture_output=True, text=True, check=True
        )
    found = json.loads(done.stdout)
    for text, ids, back in zip(texts, found["ids"], found["back"], strict=True):
        assert ids == [tokenizer.bos_id, *tokenizer.encode(text)], text
        assert back == tokenizer.decode(ids)


def changed(folder: Path, target: Path, change: Callable[[dict], object]) -> Path:
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    (target / "tokenizer.json").write_text(json.dumps(content))
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"].update(type="Unigram"), "byte-pair"),
        (lambda c: c["model"].update(byte_fallback=False), "byte-pair"),
        (lambda c: c.update(pre_tokenizer={"type": "ByteLevel"}), "splits text.*ByteLevel"),
        (lambda c: c.update(normalizer={"type": "Lowercase"}), "changes text.*Lowercase"),
        (lambda c: c["model"]["vocab"].pop("<0x0A>"), "damaged"),
        (lambda c: c["model"]["merges"].append("no such"), "damaged"),
    ],
)
def test_a_tokenizer_that_the_page_cannot_do_is_refused(
    change: Callable[[dict], object], message: str, tokenizer_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TokenizerError, match=message):
        page_vocabulary(changed(tokenizer_folder, tmp_path, change))


def test_a_tokenizer_that_puts_a_space_first(tokenizer_folder: Path, tmp_path: Path) -> None:
    """As that of Llama 2."""
    steps = [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ]
    normal = {"normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None}
    assert page_vocabulary(changed(tokenizer_folder, tmp_path, lambda c: c.update(normal)))[
        "prefix"
    ]
    assert not page_vocabulary(tokenizer_folder)["prefix"]


@given(data=st.binary(max_size=5000), piece=st.sampled_from((3, 60, 6000)))
def test_bytes_as_scripts(
    data: bytes, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "PIECE", piece)
        count = write_pieces(folder, "part", data)
    if count <= 1000:
        assert len(list(folder.iterdir())) == count
    assert read_pieces(folder, "part") == data or count > 1000


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server with a package as the npm registry has it; its folder."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with tarfile.open(folder / "web.tgz", "w:gz") as archive:
        for name in (SCRIPT, *PACKED.values(), "other.js"):
            info = tarfile.TarInfo(f"package/dist/{name}")
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.sha256((folder / "web.tgz").read_bytes()).hexdigest()
    monkeypatch.setattr(onnxruntime, "URL", f"http://127.0.0.1:{server.server_port}/web.tgz")
    monkeypatch.setattr(onnxruntime, "SHA256", digest)
    monkeypatch.setenv("OPENLLM_CACHE", str(tmp_path / "cache"))
    yield folder
    server.shutdown()
    server.server_close()


def test_the_runtime_is_fetched_once(registry: Path) -> None:
    place = find_runtime(None)
    assert {file.name for file in place.iterdir()} == {SCRIPT, *PACKED.values()}
    (registry / "web.tgz").unlink()
    assert find_runtime(None) == place


def test_a_missing_runtime_is_explained(registry: Path, tmp_path: Path, fake_runtime: Path) -> None:
    (registry / "web.tgz").unlink()
    with pytest.raises(DownloadError, match="--runtime FOLDER"):
        find_runtime(None)
    with pytest.raises(ConfigError, match="npm pack onnxruntime-web@"):
        find_runtime(tmp_path)
    assert find_runtime(fake_runtime) == fake_runtime / "package" / "dist"


def folder_megabytes(folder: Path) -> float:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sum(f.stat().st_size for f in files if "runtime" not in f.parts) / 1e6


@pytest.mark.integration
def test_the_best_weights_that_fit(
    model_folder: Callable[[str], Path],
    fake_runtime: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = model_folder("llama")
    for place in ("wide", "narrow", "tiny", "int8", "int4"):
        (tmp_path / place).mkdir()
    for dtype in ("int8", "int4"):
        export_onnx(source, tmp_path / dtype, dtype=dtype, round_inputs=False)

    def again(_: Path, target: Path, *, dtype: str, round_inputs: bool) -> None:
        """The same files as before, without tracing once more."""
        assert not round_inputs
        shutil.copytree(tmp_path / dtype, target, dirs_exist_ok=True)

    monkeypatch.setattr(writer, "export_onnx", again)
    export_web(source, tmp_path / "wide", max_mb=50, runtime=fake_runtime)
    wide = folder_megabytes(tmp_path / "wide")
    assert '"Weights":"8 bits"' in (tmp_path / "wide" / "facts.js").read_text()
    export_web(source, tmp_path / "narrow", max_mb=wide - 0.01, runtime=fake_runtime)
    narrow = folder_megabytes(tmp_path / "narrow")
    assert narrow < wide - 0.01
    assert "4 bits" in (tmp_path / "narrow" / "facts.js").read_text()
    with pytest.raises(ConfigError, match=r"would have 0\.\d MB with int4.*is 0\.1"):
        export_web(source, tmp_path / "tiny", max_mb=0.1, runtime=fake_runtime)
    assert not (tmp_path / "tiny" / "model").exists()

    prompts = [[1, 30, 40], [1, 50]]
    ours = open_web(tmp_path / "wide", threads=1)
    assert ours.greedy(prompts, 30) == OnnxModel(tmp_path / "int8", threads=1).greedy(prompts, 30)
    assert len(ours.layers([1, 30, 40])) == 2
    show_verdict(tmp_path / "wide", 'passed: "greedy" 256/256')
    text = (tmp_path / "wide" / "certificate.js").read_text()
    assert text == 'OpenLLM.certificate="passed: \\"greedy\\" 256/256";\n'
    (tmp_path / "wide" / "model" / "part-000.js").write_text("damaged")
    with pytest.raises(CheckpointError, match="damaged"):
        open_web(tmp_path / "wide")


@pytest.mark.slow
def test_the_page_in_a_browser(
    model_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened from the disk, without network; needs onnxruntime-web in the cache, or fetches it."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    from browser import FINISHED, READY, greedy, outside
    from chromium import Chromium, find_chromium

    if find_chromium() is None:
        pytest.skip("needs Chromium")
    page = tmp_path / "a page & more"
    page.mkdir()
    export_web(model_folder("qwen3"), page, max_mb=10)
    tokenizer = load_tokenizer(page)
    text = "Anna found a lamp ☕"
    prompt = [tokenizer.bos_id, *tokenizer.encode(text)]
    with Chromium() as browser:
        browser.open(page / "index.html")
        browser.wait(READY)
        assert browser.run(f"OpenLLM.tokenizer.encode({json.dumps(text)})") == prompt
        assert greedy(browser, prompt, 60)[0] == open_web(page).greedy([prompt], 60)[0]
        browser.run(f"document.getElementById('prompt').value = {json.dumps(text)}")
        browser.run("document.getElementById('form').requestSubmit()")
        browser.wait(FINISHED)
        shown = browser.run("document.getElementById('text').textContent")
        assert shown.startswith(text) and len(shown) > len(text) + 20
        assert "tokens/s" in browser.run("document.getElementById('status').textContent")
        browser.run("document.getElementById('tokens').value = 100000")
        browser.run("document.getElementById('form').requestSubmit()")
        browser.run("document.getElementById('stop').click()")
        browser.wait(FINISHED)
        assert outside(browser) == []
        assert browser.messages == []
