from __future__ import annotations

import pytest

from segpatch.cli.options import choose_device, parse_seeds, parse_size
from segpatch.errors import BadInput


def test_seeds():
    assert parse_seeds("3,0,1") == (3, 0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,one", "seeds are whole numbers with commas between, such as 0,1,2; got '0,one'"),
        ("0,0", r"seeds must be one or more, and different; got \(0, 0\)"),
        ("-1", "seed must be a whole number from 0 to 4294967295, got -1"),
    ],
)
def test_seeds_that_cannot_be_used(text: str, message: str):
    with pytest.raises(BadInput, match=message):
        parse_seeds(text)


def test_sizes():
    assert (parse_size("48x64"), parse_size("70"), parse_size(None)) == ((48, 64), (70, 70), None)


@pytest.mark.parametrize("text", ["", "0", "4by4", "1x2x3", "²", "9" * 5000])
def test_sizes_that_cannot_be_used(text: str):
    with pytest.raises(BadInput, match="a size is HxW or one side in pixels"):
        parse_size(text)


@pytest.mark.parametrize(("gpus", "chosen"), [(0, "cpu"), (2, "cuda")])
def test_the_device_is_a_gpu_where_there_is_one(gpus: int, chosen: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert choose_device("auto") == chosen
    with pytest.raises(BadInput, match=f"this machine shows {gpus} CUDA devices; use cpu"):
        choose_device("cuda:2")
    with pytest.raises(BadInput, match="--device must be auto, cpu, cuda or cuda:N; got 'cuda:²'"):
        choose_device("cuda:²")
    with pytest.raises(BadInput, match="--device must be auto, cpu, cuda or cuda:N; got 'cuda:9999"):
        choose_device("cuda:" + "9" * 5000)
