"""The names that outside users and scripts rely on (docs/design.md, Contract)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import segpatch

PUBLIC = {
    "AttackConfig", "LOSSES", "MODELS", "MatrixPlan", "PRESETS", "Patch", "Scores", "TransferMatrix", "Victim",
    "evaluate", "load_network", "load_patch", "load_victim", "open_data", "run_matrix", "train_patch",
    "transfer_matrix",
}  # fmt: skip


def test_public_names_are_these():
    assert set(segpatch.__all__) == PUBLIC
    assert dir(segpatch) == sorted([*PUBLIC, "__version__"])


def test_every_public_name_is_there_and_says_what_it_is():
    for name in PUBLIC:
        value = getattr(segpatch, name)
        assert value is not None
        if callable(value):
            assert value.__doc__, name


def test_no_public_name_is_hidden_by_a_module_of_that_name():
    code = "from segpatch import *; import types; assert not isinstance(evaluate, types.ModuleType)"
    subprocess.run([sys.executable, "-c", code], check=True)
    modules = {path.stem for path in Path(segpatch.__file__).parent.iterdir()}
    assert not modules & PUBLIC


def test_importing_segpatch_does_not_import_torch():
    code = "import sys, segpatch; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
