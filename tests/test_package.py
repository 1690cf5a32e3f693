"""What is published: one version everywhere, and a wheel and an sdist that work where nothing else is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import segpatch

ROOT = Path(__file__).parents[1]
SHIPPED = {f"segpatch/models/shipped/{name}.safetensors" for name in ("pidnet-s", "bisenetv2", "segformer-b0")}
OTHERS = {"segpatch/models/checkpoints.toml", "segpatch/report/page.html.j2", "segpatch/published/matrix.json"}


def test_one_semantic_version():
    version = segpatch.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", version)
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    first = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert first == version


def test_links_between_documents_lead_somewhere():
    for name in ("CONTRIBUTING.md", "SECURITY.md", "docs/tutorial.md", "docs/how-to/own-network.md",
                 "docs/how-to/tensorboard.md", "docs/how-to/mlflow.md"):  # fmt: skip
        links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text())
        assert not [link for link in links if not (ROOT / name).parent.joinpath(link).exists()], name


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.long
def test_wheel_and_sdist_work_in_a_clean_environment(tmp_path: Path):
    source, builder = tmp_path / "source", tmp_path / "builder"
    run("git", "clone", "--quiet", ROOT, source, cwd=tmp_path)
    run(sys.executable, "-m", "venv", builder, cwd=tmp_path)
    run(builder / "bin/pip", "install", "--quiet", "hatchling", cwd=tmp_path)
    run(builder / "bin/python", "-m", "hatchling", "build", "-d", tmp_path / "dist", cwd=source)
    (wheel,), (sdist,) = (list((tmp_path / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    assert wheel.name == f"segpatch-{segpatch.__version__}-py3-none-any.whl"
    assert set(zipfile.ZipFile(wheel).namelist()) >= SHIPPED | OTHERS
    with tarfile.open(sdist) as packed:
        inside = {name.partition("/")[2] for name in packed.getnames()}
    assert {f"src/{name}" for name in SHIPPED | OTHERS} | {"LICENSE", "CITATION.cff", "SECURITY.md"} <= inside
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    pip, tool = (tmp_path / "env/bin" / name for name in ("pip", "segpatch"))
    install = [pip, "install", "--quiet", "--no-compile", "--constraint", ROOT / "constraints.txt"]
    run(*install, "torch==2.13.0", cwd=tmp_path)
    for package in (wheel, sdist):
        home = tmp_path / package.suffix
        home.mkdir()
        run(*install, package, cwd=home)
        listed = json.loads(run(tool, "models", "--json", cwd=home))["models"]
        assert {m["name"] for m in listed if m["shipped"]} == {Path(name).stem for name in SHIPPED}
        short = ["--victim", "pidnet-s", "--data", "streets", "--images", "1", "--quiet"]
        run(tool, "attack", *short, "--steps", "1", "--batch-size", "1", "--out", "a", cwd=home)
        run(tool, "evaluate", *short, "--patch", "a", "--out", "e", cwd=home)
        assert (home / "e/report/index.html").is_file()
        run(pip, "uninstall", "--quiet", "--yes", "segpatch", cwd=home)
        assert not tool.exists()
