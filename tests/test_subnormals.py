import subprocess
import sys

import pytest

CODE = """
import torch
from segpatch import subnormals
torch.set_num_threads(3)
asked = {asked} and subnormals.flush()
small = torch.full((1 << 20,), 1.5e-38)  # a normal number, whose half is none
print(bool(asked), int((small * 0.5 > 0).sum()))
"""


@pytest.mark.parametrize(("asked", "left"), [(False, 1 << 20), (True, 0)])
def test_subnormal_numbers_are_0_in_every_thread_where_asked(asked: bool, left: int):
    code = CODE.format(asked=asked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(asked), str(left)]
