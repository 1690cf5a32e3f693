from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save

from segpatch.cli import main
from segpatch.errors import BadInput, Missing
from segpatch.models import download as module
from segpatch.models.catalogue import find_entry
from segpatch.models.checkpoints import file_sha256
from segpatch.models.download import LEDGER, download, must_be_recorded
from segpatch.models.load import load_network
from segpatch.models.networks import MODELS

CONTENT = save({"weight": torch.arange(50_000.0)})
FILE = "net.safetensors"
MB = 10**6


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's `content` as its `behave` says."""

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        self.server.behave(self)

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


def ranged(cut: int | None = None, tag: str = '"one"') -> Callable[[Handler], None]:
    """A good server, which breaks off after `cut` bytes of an answer."""

    def behave(handler: Handler) -> None:
        content, wanted = handler.server.content, handler.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start and handler.headers.get("If-Range") != tag:
            start = 0
        if start >= len(content):
            handler.answer(416, b"", 0)
            return
        body = content[start:]
        more = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        handler.answer(206 if start else 200, body[:cut], len(body), ETag=tag, **more)

    return behave


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen, server.content, server.behave = [], CONTENT, ranged()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def entry(server):
    address = f"http://127.0.0.1:{server.server_address[1]}/x/{FILE}"
    return replace(find_entry("pidnet-s"), name="net", file=FILE, address=address)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_file_comes_whole_and_is_recorded(entry, server, tmp_path):
    seen = []
    path = download(entry, tmp_path / "new" / "folder", max_size=MB, on_bytes=lambda *at: seen.append(at))
    assert path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    record = json.loads((path.parent / LEDGER).read_text())[FILE]
    assert (record["sha256"], record["bytes"], record["address"]) == (
        file_sha256(path),
        len(CONTENT),
        entry.address,
    )
    assert visible(path.parent) == [LEDGER, FILE]
    assert not list(path.parent.glob(".*.part"))
    assert download(entry, path.parent, max_size=1) == path, "what is there is not fetched again"
    assert len(server.seen) == 1


def test_an_interrupted_download_goes_on(entry, server, tmp_path):
    server.behave = ranged(cut=70_000)
    with pytest.raises(Missing, match=rf"ended after 70000 of {len(CONTENT)} bytes; the same command goes on"):
        download(entry, tmp_path, max_size=MB)
    assert visible(tmp_path) == []
    with pytest.raises(Missing, match="ended after 140000 of"):
        download(entry, tmp_path, max_size=MB)
    server.behave = ranged()
    assert download(entry, tmp_path, max_size=MB).read_bytes() == CONTENT
    assert [seen.get("Range") for seen in server.seen] == [None, "bytes=70000-", "bytes=140000-"]


def test_ctrl_c_leaves_what_can_be_gone_on_from(entry, server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 1000)

    def stop(done: int, total: int | None) -> None:
        if done > 50_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(entry, tmp_path, max_size=MB, on_bytes=stop)
    assert download(entry, tmp_path, max_size=MB).read_bytes() == CONTENT
    assert server.seen[1]["Range"] == "bytes=51000-"


@pytest.mark.parametrize("tag", ['"two"', "", 'W/"one"'])
def test_other_content_or_a_server_without_versions_starts_again(entry, server, tmp_path, tag):
    server.behave = ranged(cut=70_000, tag='"one"' if tag == '"two"' else tag)
    with pytest.raises(Missing):
        download(entry, tmp_path, max_size=MB)
    server.content, server.behave = save({"weight": torch.ones(60_000)}), ranged(tag=tag)
    assert download(entry, tmp_path, max_size=MB).read_bytes() == server.content


def test_a_server_that_ignores_ranges(entry, server, tmp_path):
    server.behave = ranged(cut=70_000)
    with pytest.raises(Missing):
        download(entry, tmp_path, max_size=MB)
    server.behave = lambda handler: handler.answer(200, CONTENT, len(CONTENT), ETag='"one"')
    assert download(entry, tmp_path, max_size=MB).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_again(entry, server, tmp_path):
    (tmp_path / f".{FILE}.part").write_bytes(bytes(len(CONTENT) + 5))
    (tmp_path / ".net.safetensors.version").write_text('"one"')
    assert download(entry, tmp_path, max_size=MB).read_bytes() == CONTENT
    assert len(server.seen) == 2


def wrong_part(handler: Handler) -> None:
    handler.answer(206, CONTENT[7:], len(CONTENT) - 7, Content_Range=f"bytes 7-99/{len(CONTENT)}")


REFUSED = {
    "too large": (lambda h: h.answer(200, b"", 2 * MB), BadInput, f"is of {2 * MB} bytes, more than the {MB}"),
    "too large, unsaid": (lambda h: h.answer(200, bytes(2 * MB)), BadInput, f"grew over the {MB} bytes"),
    "says less": (lambda h: h.answer(200, CONTENT, 1000), BadInput, "is not a whole safetensors file"),
    "says more": (
        lambda h: h.answer(200, CONTENT, 999_999),
        Missing,
        f"ended after {len(CONTENT)} of 999999 bytes",
    ),
    "cut, unsaid": (lambda h: h.answer(200, CONTENT[:1000]), BadInput, "is not a whole safetensors file"),
    "a page": (lambda h: h.answer(200, b"<html>quota", 11), BadInput, "begins with b'<html>quo'"),
    "nothing": (lambda h: h.answer(200, b"", 0), BadInput, "is empty"),
    "absent": (lambda h: h.answer(404, b"", 0), Missing, r"the server answers 404 \(Not Found\)"),
    "broken": (lambda h: h.answer(503, b"", 0), Missing, "the server answers 503"),
    "no answer": (lambda h: h.connection.close(), Missing, "cannot be reached"),
    "nonsense": (lambda h: h.wfile.write(b"hello\r\n\r\n"), Missing, "cannot be reached"),
    "another part": (wrong_part, Missing, "another part of the file"),
    "no address": (lambda h: h.answer(302, b"", 0, Location="http://["), Missing, "cannot be reached"),
    "a loop": (lambda h: h.answer(302, b"", 0, Location=h.path), Missing, "the server answers 302"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_server_may_do_wrong_leaves_no_file(entry, server, tmp_path, case):
    server.behave, error, words = REFUSED[case]
    with pytest.raises(error, match=words) as raised:
        download(entry, tmp_path, max_size=MB)
    assert "\n" not in str(raised.value)
    assert visible(tmp_path) == []
    server.behave = ranged()
    assert download(entry, tmp_path, max_size=MB).read_bytes() == CONTENT, "and the next try succeeds"


def test_a_kill_between_two_versions_mixes_no_content(entry, server, tmp_path, monkeypatch):
    server.behave = ranged(cut=70_000)
    with pytest.raises(Missing):
        download(entry, tmp_path, max_size=MB)
    server.content, server.behave = save({"weight": torch.ones(50_000)}), ranged(tag='"two"')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_copy", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        download(entry, tmp_path, max_size=MB)
    assert download(entry, tmp_path, max_size=MB).read_bytes() == server.content


@pytest.mark.parametrize("version", [b"\xff", b"a\nb", b""])
def test_a_version_that_cannot_be_sent_back_starts_again(entry, server, tmp_path, version):
    (tmp_path / f".{FILE}.part").write_bytes(b"abc")
    (tmp_path / f".{FILE.removesuffix('.safetensors')}.safetensors.version").write_bytes(version)
    assert download(entry, tmp_path, max_size=MB).read_bytes() == CONTENT
    assert server.seen[0].get("Range") is None


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000])
def test_a_length_that_is_no_number_is_unknown(entry, server, tmp_path, length):
    server.behave = lambda h: h.answer(200, CONTENT, Content_Length=length)
    with contextlib.suppress(Missing):  # the other end may end at an absurd length
        download(entry, tmp_path, max_size=MB)


def test_no_server(entry, tmp_path, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(Missing, match=r"cannot be reached \(.*refused\); the same command tries again"):
        download(entry, tmp_path, max_size=MB)


def test_encryption_is_not_left():
    handler = module._Safely()
    request = module.Request("https://a.org/x")
    with pytest.raises(module.URLError, match="not encrypted"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://a.org/x")
    assert (
        handler.redirect_request(request, None, 302, "Found", {}, "https://b.org/x").full_url == "https://b.org/x"
    )


def test_the_first_hash_is_compared_ever_after(entry, server, tmp_path):
    path = download(entry, tmp_path, max_size=MB)
    assert must_be_recorded(path) == file_sha256(path)
    path.write_bytes(save({"weight": torch.zeros(3)}))
    for again in (lambda: download(entry, tmp_path, max_size=MB), lambda: must_be_recorded(path)):
        with pytest.raises(BadInput, match=rf"is not the {FILE} first fetched on 20"):
            again()
    path.unlink()
    server.content, server.behave = save({"weight": torch.ones(9)}), ranged(tag='"two"')
    with pytest.raises(BadInput, match=rf"is not the {FILE} first fetched on 20"):
        download(entry, tmp_path, max_size=MB)
    assert visible(tmp_path) == [LEDGER]
    server.content, server.behave = CONTENT, ranged()
    assert download(entry, tmp_path, max_size=MB).read_bytes() == CONTENT


def test_a_network_is_not_loaded_from_a_file_that_changed(entry, server, tmp_path):
    torch.manual_seed(0)
    state = MODELS["bisenetv2"].default.build(19, auxiliary=False).state_dict()
    server.content = save(state)
    path = download(entry, tmp_path, max_size=100 * MB)
    assert load_network("bisenetv2", path)
    path.write_bytes(save({**state, "head.conv_out.1.bias": torch.ones(19)}))
    with pytest.raises(BadInput, match="first fetched on"):
        load_network("bisenetv2", path)


def test_a_record_cannot_break_the_line_of_an_error(entry, tmp_path):
    (tmp_path / FILE).write_bytes(CONTENT)
    (tmp_path / LEDGER).write_text(json.dumps({FILE: {"sha256": "1\n2", "first_seen": "a\nb"}}))
    with pytest.raises(
        BadInput, match=r"first fetched on a; b: its SHA-256 is \w{12} \.\., not 1; 2 \.\.; remove it"
    ):
        must_be_recorded(tmp_path / FILE)
    assert (tmp_path / FILE).read_bytes() == CONTENT


def test_a_file_that_was_there_is_recorded(entry, tmp_path):
    (tmp_path / FILE).write_bytes(CONTENT)
    download(entry, tmp_path, max_size=1)
    assert json.loads((tmp_path / LEDGER).read_text())[FILE]["sha256"] == file_sha256(tmp_path / FILE)
    (tmp_path / LEDGER).write_text("{half")
    with pytest.raises(BadInput, match="remove it to record hashes anew"):
        download(entry, tmp_path, max_size=1)


def test_two_at_once_are_told_apart(entry, tmp_path):
    with FileLock(tmp_path / f".{FILE}.lock"), pytest.raises(BadInput, match="is already being fetched"):
        download(entry, tmp_path, max_size=MB)


def test_a_place_that_cannot_be_written(entry, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="cannot write to"):
        download(entry, tmp_path / "file", max_size=MB)


def test_the_command(entry, server, tmp_path, monkeypatch, capsys):
    by_hand = replace(find_entry("pidnet-s-val"), name="by-hand")
    monkeypatch.setattr("segpatch.models.catalogue.catalogue", lambda: (entry, by_hand))

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["segpatch", "models", "download", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    code, out, err = call("net", "--out", str(tmp_path))
    assert code == 0 and f"use it as --victim pidnet-s={tmp_path}/{FILE}\n" in out
    assert f"SHA-256 {file_sha256(tmp_path / FILE)}" in out and "Apache-2.0" in out
    assert f"{FILE}, MB: 0/0" in err
    assert call("pidnet-s", "--out", str(tmp_path), "--quiet") == (0, out, "")
    (tmp_path / FILE).unlink()
    code, out, err = call("net", "--out", str(tmp_path), "--max-size", "0.1", "--quiet")
    assert (code, out) == (1, "") and "more than the 100000 that --max-size allows" in err
    code, out, _ = call("by-hand")
    assert code == 0 and "https://drive.google.com" in out and "keep it as PIDNet_S_Cityscapes_val.pt" in out
    assert call("by-hnad")[0] == 1


def test_the_default_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.default_folder().name == "checkpoints"
