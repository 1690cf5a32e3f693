"""The files of a Hugging Face checkpoint: in a local folder, or on the hub and from there in its cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from segpatch.errors import BadInput, Missing
from segpatch.reading import read_text

CONFIG, INDEX = "config.json", ".index.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there, whole or in parts


@dataclass(frozen=True)
class Files:
    """A checkpoint's files.

    source: what the user gave; origin: what to call it in a record; find: a file's path on this machine by its
    name, after a download where one is needed, or None where there is no such file.
    """

    source: str
    origin: str
    find: Callable[[str], Path | None]

    def table(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file, or None where there is no such file; BadInput where it holds no table."""
        path = self.find(name)
        if path is None:
            return None
        text = read_text(path)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"hf:{self.source}: {name} is no JSON ({error})") from error
        if not isinstance(content, dict):
            raise BadInput(f"hf:{self.source}: expected a table in {name}, got {type(content).__name__}")
        return content

    def weights(self) -> tuple[Path, ...]:
        """The files that hold the weights: safetensors if there are any."""
        for name in WEIGHTS:
            whole = self.find(name)
            if whole is not None:
                return (whole,)
            index = self.table(name + INDEX)
            if index is not None:
                return tuple(self._part(part, name + INDEX) for part in sorted(self._parts(index, name + INDEX)))
        raise Missing(
            f"hf:{self.source} has no weights that can be had from here; expected {' or '.join(WEIGHTS)}, in the "
            "folder, on the hub or, without network, in the cache"
        )

    def _parts(self, index: dict[str, Any], name: str) -> set[str]:
        table = index.get("weight_map")
        parts = set(map(str, table.values())) if isinstance(table, dict) else set()
        if not parts or any(Path(part).name != part for part in parts):
            raise BadInput(f"hf:{self.source}: {name} does not say which files hold the weights")
        return parts

    def _part(self, part: str, index: str) -> Path:
        path = self.find(part)
        if path is None:
            raise Missing(f"hf:{self.source} lacks {part}, which its {index} names; download it again")
        return path


def hf_files(source: str) -> Files:
    """The files of a local folder, else of an id on the hub; Missing where there is neither."""
    return _in_folder(source) if Path(source).exists() else _on_hub(source)


def package(name: str, source: str) -> Any:
    """A package of the extra `hf`; Missing where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Missing(f"hf:{source} needs {name}; install it with: pip install 'segpatch[hf]'") from error


def _in_folder(source: str) -> Files:
    folder = Path(source)
    if not (folder / CONFIG).is_file():
        raise Missing(
            f"hf:{source} holds no {CONFIG}; give a folder that save_pretrained wrote, or an id on the hub"
        )

    def find(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    return Files(source, folder.resolve().name, find)


def _on_hub(source: str) -> Files:
    """The files of an id: from the cache, else downloaded to it, all of the same state of the hub."""
    hub = package("huggingface_hub", source)
    errors = hub.errors
    unreachable = False  # and not asked again, because each time takes long

    def find(name: str, revision: str | None) -> Path | None:
        nonlocal unreachable
        try:
            cached = hub.try_to_load_from_cache(source, name, revision=revision)
            if cached is None and not unreachable:
                with quiet(hub.logging):
                    cached = hub.hf_hub_download(source, name, revision=revision)
            # What is neither a path nor None says that the hub is known to have no such file.
            return Path(cached) if isinstance(cached, str) else None
        except errors.LocalEntryNotFoundError:
            unreachable = True
            return None
        except errors.EntryNotFoundError:
            return None
        except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as error:
            raise Missing(f"hf:{source} {_trouble(errors, error)}") from error

    config = find(CONFIG, None)
    if config is None and unreachable:
        raise Missing(
            f"hf:{source} is no folder here nor in the cache, and the hub cannot be reached; go online once, or "
            "give a local folder"
        )
    if config is None:
        raise Missing(f"hf:{source} holds no {CONFIG}: it is no network of transformers")
    revision = config.parent.name
    return Files(source, f"{source}@{revision[:12]}", lambda name: find(name, revision))


def _trouble(errors: Any, error: Exception) -> str:
    if isinstance(error, errors.HFValidationError):
        return "is neither a folder here nor an id on the hub, such as OWNER/NAME"
    if isinstance(error, errors.GatedRepoError):
        return "is gated: accept its terms on its page on the hub, then log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "is no folder here, and nothing on the hub that you may see; check the name, or log in"
    return f"cannot be downloaded ({first_line(error)}); try again, or give a local folder"


@contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """Nothing but errors from a package of Hugging Face, whose logging module this is."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def sha256_of(files: tuple[Path, ...]) -> str:
    """SHA-256 of the files one after the other, in hex; of a single file, its own."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
