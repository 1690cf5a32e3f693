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
