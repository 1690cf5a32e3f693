from __future__ import annotations

import math

import torch

from segpatch.criteria import class_weights, ohem
from segpatch.types import IGNORE


def test_class_weights_by_hand():
    # Six counted pixels: half of class 0, a third of class 1, a sixth of class 2, none of class 3.
    labels = torch.tensor([[0, 0, 0, 1], [1, 2, IGNORE, IGNORE]], dtype=torch.uint8)
    weights = class_weights([(torch.zeros(3, 2, 4), labels)], 4)
    raw = [1 / math.log(1.1 + share) for share in (1 / 2, 1 / 3, 1 / 6, 0)]
    mean = raw[0] / 2 + raw[1] / 3 + raw[2] / 6
    torch.testing.assert_close(weights, torch.tensor([value / mean for value in raw]))


def test_ohem_by_hand():
    loss = torch.tensor([[[1.0, 4.0], [3.0, 100.0]], [[2.0, 0.0], [0.5, 0.1]]])
    counted = torch.ones(2, 2, 2, dtype=torch.bool)
    counted[0, 1, 1] = False  # the 100
    assert ohem(loss, counted, share=0.5) == (4 + 3 + 2) / 3  # half of seven, rounded down
    assert ohem(loss, counted, share=0.01) == 4
    assert ohem(loss, ~counted & False) == 0
