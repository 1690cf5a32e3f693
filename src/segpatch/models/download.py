"""Published checkpoints, fetched: resumed where one was interrupted, whole or not there, and compared ever after.

Nobody publishes hashes of these files, so the first one that comes is recorded, in checksums.json beside it, and
each later file of that name must be the same.
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import platformdirs
from filelock import FileLock, Timeout

from segpatch.errors import BadInput, Missing, SegpatchError, in_line
from segpatch.models.catalogue import Entry
from segpatch.models.checkpoints import file_sha256
from segpatch.models.tensor_files import must_be_whole
from segpatch.reading import read_text
from segpatch.writing import guarded, write_whole

LEDGER = "checksums.json"
BLOCK = 1 << 18
TIMEOUT = 30.0

OnBytes = Callable[[int, int | None], None]
"""Gets the bytes that are there, and how many there will be as far as that is known."""


def default_folder() -> Path:
    """Where checkpoints go unless the user says otherwise."""
    return platformdirs.user_cache_path("segpatch") / "checkpoints"


def download(entry: Entry, folder: Path, *, max_size: int, on_bytes: OnBytes = lambda done, total: None) -> Path:
    """The file of an entry in a folder, fetched unless it is there.

    What an interrupted download left is gone on from. Raises BadInput where the file is larger than max_size
    (bytes), is no checkpoint, or is not the one that was first recorded under its name; Missing where it cannot
    be had. Nothing but a whole file is ever found under its name.
    """
    assert entry.address
    target = folder / entry.file
    with guarded(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f".{entry.file}.lock", entry):
        if not target.exists():
            part = folder / f".{entry.file}.part"
            _fetch(entry.address, part, max_size, on_bytes)
            try:
                must_be_whole(part)
                _compare(part, entry.file)
            except BadInput as error:
                _forget(part)
                raise BadInput(f"{entry.address} sent no checkpoint that can be kept: {error}") from error
            _tag(part).unlink(missing_ok=True)
            part.replace(target)
        must_be_recorded(target, entry.address)
    return target


def must_be_recorded(path: Path, address: str | None = None) -> str:
    """The SHA-256 of a file, in hex; BadInput where another is recorded beside it, under its name.

    address: where the file is from; with it, a file that has no record yet gets one.
    """
    sha256 = _compare(path, path.name)
    if address and path.name not in _ledger(path.parent):
        with FileLock(path.with_name(f".{LEDGER}.lock")):
            facts = {"sha256": sha256, "bytes": path.stat().st_size, "address": address}
            entry = {path.name: {**facts, "first_seen": datetime.date.today().isoformat()}}
            content = json.dumps({**_ledger(path.parent), **entry}, indent=2) + "\n"
            write_whole(path.with_name(LEDGER), content.encode())
    return sha256


def _compare(path: Path, name: str) -> str:
    sha256, known = file_sha256(path), _ledger(path.parent).get(name)
    if known and known.get("sha256") != sha256:
        raise BadInput(
            f"{path} is not the {name} first fetched on {in_line(known.get('first_seen'))}: its SHA-256 is "
            f"{sha256[:12]} .., not {in_line(known.get('sha256'))[:12]} ..; remove it, or, if you know why, what "
            f"{path.with_name(LEDGER)} says of it"
        )
    return sha256


def _ledger(folder: Path) -> dict[str, Any]:
    path = folder / LEDGER
    text = read_text(path) if path.exists() else "{}"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}); remove it to record hashes anew") from error
    return {k: v for k, v in content.items() if isinstance(v, dict)} if isinstance(content, dict) else {}


def _fetch(address: str, part: Path, max_size: int, on_bytes: OnBytes) -> None:
    """Fetches an address into a file, from where it ends if it is the beginning of the same content."""
    request = Request(address, headers={"User-Agent": "segpatch", "Accept-Encoding": "identity"})
    held = part.stat().st_size if part.exists() else 0
    tag = _held_version(part) if held else None
    if tag:  # otherwise nothing says that it is the same content
        request.add_header("Range", f"bytes={held}-")
        request.add_header("If-Range", tag)
    try:
        with _reaching(address), _OPENER.open(request, timeout=TIMEOUT) as answer:
            start, total = _extent(answer, held)
            if total is not None and total > max_size:
                raise BadInput(f"{address} is of {total} bytes, more than the {max_size} that --max-size allows")
            if not start:  # or a kill could leave the old content's beginning under the new one's version
                part.unlink(missing_ok=True)
            write_whole(_tag(part), _version(answer).encode())
            done = _copy(answer, part, start, total, max_size, on_bytes)
    except HTTPError as error:
        error.close()
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not tag:
            reason = _first_line(error.reason)
            raise Missing(
                f"{address}: the server answers {error.code} ({reason}); see whether it moved"
            ) from error
        _forget(part)  # it holds more than the content has
        return _fetch(address, part, max_size, on_bytes)
    if total is not None and done != total:
        raise Missing(f"{address}: the connection ended after {done} of {total} bytes; the same command goes on")
    return None


def _copy(answer: IO[bytes], part: Path, start: int, total: int | None, max_size: int, on_bytes: OnBytes) -> int:
    """Writes an answer behind the first `start` bytes of a file; how many it has then."""
    done = start
    with guarded(part), part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        on_bytes(done, total)
        while block := _read(answer):
            done += len(block)
            if done > max_size:
                _forget(part)
                raise BadInput(
                    f"{part.name} grew over the {max_size} bytes that --max-size allows; it was removed"
                )
            file.write(block)
            on_bytes(done, total)
    return done


def _read(answer: IO[bytes]) -> bytes:
    """The next block; nothing where the connection broke, which the length then shows."""
    try:
        return answer.read(BLOCK)
    except (OSError, http.client.HTTPException):
        return b""


def _extent(answer: Any, held: int) -> tuple[int, int | None]:
    """Where an answer's content begins, and the length of the whole if the server says it."""
    if answer.status == http.client.PARTIAL_CONTENT:
        unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
        first, _, total = span.partition("/")
        if unit == "bytes" and first.split("-")[0] == str(held) and (whole := _number(total)) is not None:
            return held, whole
        raise Missing("the server answers with another part of the file than was asked for; try again")
    return 0, _number(answer.headers.get("Content-Length", ""))


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _version(answer: Any) -> str:
    """The server's name for this version of the content; empty where it has none that holds for parts."""
    tag: str = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _held_version(part: Path) -> str | None:
    """The version that a part is of, None where nothing says it that could be sent back."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = _tag(part).read_text(encoding="ascii")
        return text if text and text.isprintable() else None
    return None


def _first_line(reason: object) -> str:
    return str(reason).strip().partition("\n")[0]


def _tag(part: Path) -> Path:
    return part.with_suffix(".version")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


class _Safely(HTTPRedirectHandler):
    """Follows no redirect that leaves an encrypted connection."""

    def redirect_request(self, request: Request, *rest: Any) -> Request | None:
        if request.full_url.startswith("https:") and not rest[-1].startswith("https:"):
            raise URLError(f"it leads to {rest[-1]}, which is not encrypted")
        return super().redirect_request(request, *rest)

    def http_error_302(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage) -> Any:
        """Follows it, and leaves no connection open where it leads nowhere."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except BaseException:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


_OPENER = build_opener(_Safely)


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    try:
        yield
    except (HTTPError, SegpatchError):
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: of a redirect to no address
        reason = _first_line(getattr(error, "reason", None) or error)
        raise Missing(f"{address} cannot be reached ({reason}); the same command tries again") from error


@contextmanager
def _locked(path: Path, entry: Entry) -> Iterator[None]:
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise BadInput(f"{entry.file} is already being fetched to {path.parent}; wait for that to end") from error
