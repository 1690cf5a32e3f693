"""The documentation site is built without a warning, and says what is so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segpatch import __all__ as public
from segpatch.cli.examples import EXAMPLES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy with every warning an error."""
    root = tmp_path_factory.mktemp("docs")
    shutil.copytree(DOCS, root / "docs")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", root / "docs", root / "site"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root / "site"


def test_every_page_is_reached(site: Path):
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    missing = [page for page in sorted(pages) if not (site / page).with_suffix(".html").is_file()]
    assert not missing
    assert (site / "method.html").read_text().count("math notranslate") >= 8


def test_every_public_name_has_its_reference(site: Path):
    text = (site / "reference.html").read_text()
    constants = {"LOSSES", "MODELS", "PRESETS"}  # shown where they are explained
    missing = [name for name in public if name not in constants and f'id="segpatch.{name}"' not in text]
    assert not missing


def test_the_commands_are_those_of_the_help():
    shown = re.findall(r"^\$ (.*)$", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert shown == list(EXAMPLES.values())


def test_functions_named_in_the_method_exist():
    import importlib

    for module, name in re.findall(r"`segpatch\.(\w+)\.(\w+)`", (DOCS / "method.md").read_text()):
        assert hasattr(importlib.import_module(f"segpatch.{module}"), name), f"segpatch.{module}.{name}"
