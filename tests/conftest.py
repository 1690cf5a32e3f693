"""Fixtures that more than one test file uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def camvid() -> Path:
    """The real CamVid folder, where there is one."""
    place = os.environ.get("SEGPATCH_CAMVID")
    if not place:
        pytest.skip("SEGPATCH_CAMVID does not name a CamVid folder")
    if not Path(place, "classes.json").is_file():
        pytest.skip(f"SEGPATCH_CAMVID names {place}, which has no classes.json")
    return Path(place)


@pytest.fixture(autouse=True)
def subnormals_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command called in this process leaves it as it is for other tests; test_subnormals.py has its own."""
    monkeypatch.setattr("segpatch.subnormals.flush", lambda: False)
