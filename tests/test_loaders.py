from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from segpatch import Victim, evaluate
from segpatch.errors import BadInput
from segpatch.evaluation import ROWS
from segpatch.loaders import as_batches
from segpatch.patch import FULL_RANGE, random_patch
from segpatch.transfer import transfer_matrix
from segpatch.types import IGNORE
from tiny import Tiny, conv_victim, in_batches, pictures

PICTURES = pictures(5)
IMAGES = torch.linspace(0, 1, 144).view(2, 3, 4, 6)
LABELS = torch.zeros(2, 4, 6, dtype=torch.int64)


def test_your_own_module_and_loader_in_five_lines():
    torch.manual_seed(0)
    network = Tiny()
    loader = DataLoader([(image.float() / 255, labels.long()) for image, labels in PICTURES], batch_size=2)
    patch = random_patch((4, 4), FULL_RANGE, 0)

    victim = Victim.of(network, ["road", "car", "sky"], mean=0, std=1)
    scores = evaluate(victim, loader, patch)

    same = evaluate(victim, in_batches(PICTURES, 5), patch)
    for rows in ROWS:
        assert torch.equal(getattr(scores, rows), getattr(same, rows))
    assert scores.names == ("image 0", "image 1", "image 2", "image 3", "image 4")
    with torch.no_grad():  # the module's own prediction, counted in the plainest way
        right = sum(
            int((network(image[None].float() / 255).argmax(1)[0] == labels).sum()) for image, labels in PICTURES
        )
    assert int(scores.clean.sum(0).diagonal().sum()) == right


def test_a_loader_of_dicts_of_uint8_with_names_and_a_matrix():
    rows = [{"image": image, "label": labels[None], "name": f"a{i}"} for i, (image, labels) in enumerate(PICTURES)]
    matrix = transfer_matrix([conv_victim()], DataLoader(rows, batch_size=2), [])
    same = transfer_matrix([conv_victim()], in_batches(PICTURES, 5), [])
    assert torch.equal(matrix.cells[0].scores.clean, same.cells[0].scores.clean)
    assert matrix.cells[0].scores.names == ("a0", "a1", "a2", "a3", "a4")


def test_labels_below_0_do_not_count():
    (batch,) = as_batches([(IMAGES, torch.tensor([-100, -1, 2, 255]).expand(2, 4, 4).repeat(1, 1, 2)[..., :6])])
    assert batch.labels[0, 0, :4].tolist() == [IGNORE, IGNORE, 2, IGNORE]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ((IMAGES,), r"a pair of tensors, images and labels.*got \['Tensor'\]"),
        ({"x": IMAGES, "y": LABELS}, r"as 'images' and 'labels'; got \['x', 'y'\]"),
        ((IMAGES[0], LABELS[0]), r"images are \(B, 3, H, W\).*got \(3, 4, 6\) and \(4, 6\)"),
        ((IMAGES[:, :1], LABELS), r"got \(2, 1, 4, 6\)"),
        ((IMAGES, LABELS[:, :2]), r"and \(2, 2, 6\)"),
        ((IMAGES, LABELS.float()), "whole numbers"),
        ((IMAGES * 4 - 2, LABELS), r"in \[0, 1\], got -.* leave normalisation to the victim"),
        ((IMAGES * 255, LABELS), r"in \[0, 1\], got .* to 2"),
        ((IMAGES * torch.nan, LABELS), r"in \[0, 1\], got nan"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(item, words):
    with pytest.raises(BadInput, match=words) as error:
        list(as_batches([item]))
    assert "\n" not in str(error.value)
