import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from segpatch.errors import BadInput, Missing
from segpatch.patch import (
    FULL_RANGE,
    RELEASED_RANGE,
    Patch,
    as_png,
    as_uint8,
    grey_patch,
    load_patch,
    natural_patch,
    random_patch,
    random_pixels,
    range_name,
    rounded,
    save_patch,
    says_patch,
)

PATCH = Patch(
    torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)),
    name="pidnet-s+bisenetv2/strong/s3",
    preset="strong",
    trained_on=("pidnet-s", "bisenetv2"),
    loss="correct-pixel",
    steps=17,
    seed=3,
    place="drawn",
    range=RELEASED_RANGE,
    origin={"config": {"step_size": 0.005, "crop": [8, 8]}, "note": "für später"},
)


@pytest.fixture
def file(tmp_path):
    save_patch(PATCH, tmp_path / "patch.safetensors")
    return tmp_path / "patch.safetensors"


def test_a_saved_patch_comes_back_bit_for_bit_with_all_that_is_known(file):
    loaded = load_patch(file)
    assert torch.equal(loaded.pixels, PATCH.pixels)
    assert loaded.pixels.dtype == torch.float32
    assert loaded.facts() == PATCH.facts()
    assert loaded.range == PATCH.range
    assert loaded.origin == PATCH.origin
    assert loaded.sha256() == PATCH.sha256()


def test_a_run_directory_stands_for_its_patch(file):
    assert torch.equal(load_patch(file.parent).pixels, PATCH.pixels)
    assert torch.equal(load_patch(str(file)).pixels, PATCH.pixels)


def test_the_picture_beside_it_holds_the_rounded_pixels(file):
    picture = np.asarray(Image.open(file.with_suffix(".png")))
    assert picture.shape == (4, 5, 3)
    assert np.array_equal(picture, (PATCH.pixels * 255).round().byte().permute(1, 2, 0).numpy())
    assert sorted(path.name for path in file.parent.iterdir()) == ["patch.png", "patch.safetensors"]


def test_rounding_by_hand():
    pixels = torch.tensor([0.0, 0.5, 1.0, 1.4 / 255, 1.6 / 255]).expand(3, 1, 5)
    assert as_uint8(pixels)[0, :, 0].tolist() == [0, 128, 255, 1, 2]


def test_facts_are_ready_for_json():
    facts = json.loads(json.dumps(PATCH.facts()))
    assert facts["range"] == [[0.485, 0.714], [0.456, 0.68], [0.406, 0.631]]
    assert (facts["height"], facts["width"]) == PATCH.size == (4, 5)
    assert facts["trained_on"] == ["pidnet-s", "bisenetv2"]


def test_the_hash_is_that_of_the_pixels_alone():
    assert replace(PATCH, name="other").sha256() == PATCH.sha256()
    assert replace(PATCH, pixels=PATCH.pixels.flip(-1)).sha256() != PATCH.sha256()
    strided = PATCH.pixels.transpose(1, 2).contiguous().transpose(1, 2)
    assert replace(PATCH, pixels=strided).sha256() == PATCH.sha256()


def test_a_patch_with_a_gradient_is_saved_too(tmp_path):
    save_patch(replace(PATCH, pixels=PATCH.pixels.clone().requires_grad_()), tmp_path / "p.safetensors")
    assert torch.equal(load_patch(tmp_path / "p.safetensors").pixels, PATCH.pixels)


def test_an_absent_patch_is_missing(tmp_path):
    with pytest.raises(Missing, match=r"patch\.safetensors"):
        load_patch(tmp_path)
    with pytest.raises(Missing, match="no patch at"):
        load_patch(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_cut_file_is_refused(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(BadInput, match="no whole patch file"):
        load_patch(file)


def test_changed_pixels_are_refused(file):
    content = bytearray(file.read_bytes())
    content[-4] ^= 1  # the lowest bit of the last pixel
    file.write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        load_patch(file)


def test_another_kind_of_file_is_refused(tmp_path):
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "network.safetensors")
    with pytest.raises(BadInput, match="no patch but other tensors"):
        load_patch(tmp_path / "network.safetensors")
    (tmp_path / "text.safetensors").write_text("not a patch")
    with pytest.raises(BadInput, match="no whole patch file"):
        load_patch(tmp_path / "text.safetensors")


def test_bare_pixels_are_a_patch_named_after_their_file(tmp_path):
    save_file({"pixels": PATCH.pixels}, tmp_path / "mine.safetensors")
    patch = load_patch(tmp_path / "mine.safetensors")
    assert (patch.name, patch.kind, patch.range) == ("mine", "trained", FULL_RANGE)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_pixels_outside_the_range_are_refused(tmp_path, value):
    pixels = PATCH.pixels.clone()
    pixels[0, 0, 0] = value
    with pytest.raises(BadInput, match=r"finite and lie in \[0, 1\]"):
        Patch(pixels)
    save_file({"pixels": pixels}, tmp_path / "p.safetensors")
    with pytest.raises(BadInput, match=r"finite and lie in \[0, 1\]"):
        load_patch(tmp_path / "p.safetensors")


@pytest.mark.parametrize("pixels", [torch.zeros(4, 4), torch.zeros(1, 4, 4), torch.zeros(3, 4, 4).byte()])
def test_what_is_no_colour_picture_is_refused(pixels):
    with pytest.raises(BadInput, match=r"float tensor \(3, h, w\)"):
        Patch(pixels)


def test_an_unknown_kind_is_refused():
    with pytest.raises(BadInput, match="got 'blue'"):
        Patch(PATCH.pixels, kind="blue")


def test_a_png_is_the_patch_in_8_bits_and_says_what_it_is(file):
    loaded = load_patch(file.with_suffix(".png"))
    assert torch.equal(loaded.pixels, torch.from_numpy(as_uint8(PATCH.pixels)).permute(2, 0, 1) / 255)
    assert loaded.pixels.dtype == torch.float32 and (loaded.pixels - PATCH.pixels).abs().max() <= 0.5 / 255 + 1e-6
    known = {**PATCH.facts(), "name": f"png/{PATCH.name}", "sha256": loaded.sha256()}
    assert loaded.facts() == known and loaded.sha256() != PATCH.sha256()
    again = rounded(loaded)
    assert torch.equal(again.pixels, loaded.pixels) and again.name == loaded.name
    assert as_png(loaded) == as_png(loaded) and says_patch(file.with_suffix(".png"))


def test_any_picture_is_a_patch_named_after_its_file(tmp_path):
    Image.new("RGB", (5, 4), (255, 0, 51)).save(tmp_path / "mine.png")
    patch = load_patch(tmp_path / "mine.png")
    assert (patch.name, patch.size, patch.trained_on) == ("png/mine", (4, 5), ())
    assert patch.pixels[:, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    assert not says_patch(tmp_path / "mine.png") and not says_patch(tmp_path / "absent.png")


def test_a_picture_that_is_no_patch_is_refused(tmp_path):
    Image.new("I;16", (5, 4)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, said in (("cut", "{"), ("list", "[1]"), ("number", "1")):
        text = PngInfo()
        text.add_text("segpatch", said)
        Image.new("RGB", (5, 4)).save(tmp_path / f"{name}.png", pnginfo=text)
    damaged = dict.fromkeys(("cut", "list", "number"), "says in a damaged record what patch it is")
    for name, words in {"deep": "more than 8 bits", "text": "cannot be read", **damaged}.items():
        with pytest.raises(BadInput, match=words):
            load_patch(tmp_path / f"{name}.png")
    assert not says_patch(tmp_path / "text.png")


def test_a_notebook_shows_the_picture():
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(PATCH._repr_png_()))), as_uint8(PATCH.pixels))


def test_the_grey_control():
    patch = grey_patch((4, 6))
    assert (patch.name, patch.kind, patch.size) == ("grey", "grey", (4, 6))
    assert bool((patch.pixels == 0.5).all())


@pytest.mark.parametrize(("within", "called"), [(FULL_RANGE, "full"), (RELEASED_RANGE, "released")])
def test_the_random_control_fills_its_range(within, called):
    patch = random_patch((20, 20), within, seed=1)
    name = f"random/{called}/s1"
    assert (patch.name, patch.kind, patch.range, patch.seed) == (name, "random", within, 1)
    for channel, low, high in zip(patch.pixels, *within, strict=True):
        assert low <= channel.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < channel.max() <= high
    assert torch.equal(patch.pixels, random_pixels((20, 20), within, 1))
    assert not torch.equal(patch.pixels, random_pixels((20, 20), within, 2))


def test_the_natural_control_is_a_crop_of_the_scene():
    image = torch.arange(3 * 6 * 7).view(3, 6, 7) / 126
    before = image.clone()
    patch = natural_patch((2, 3), image, seed=0)
    crops = image.unfold(1, 2, 1).unfold(2, 3, 1)  # (3, 5, 5, 2, 3)
    assert bool((crops == patch.pixels.view(3, 1, 1, 2, 3)).all(dim=(0, 3, 4)).any())
    assert torch.equal(natural_patch((2, 3), image, seed=0).pixels, patch.pixels)
    assert len({natural_patch((2, 3), image, seed=seed).sha256() for seed in range(20)}) > 5
    patch.pixels.zero_()
    assert torch.equal(image, before), "a copy, not a view"


def test_a_natural_patch_larger_than_its_scene_is_refused():
    with pytest.raises(BadInput, match="7x2 patch does not fit in a scene of 6x7"):
        natural_patch((7, 2), torch.zeros(3, 6, 7), seed=0)


def test_names_of_ranges():
    assert range_name(FULL_RANGE) == "full"
    assert range_name(RELEASED_RANGE) == "released"
    assert range_name(((0, 0, 0), (0.5, 0.5, 0.5))) == "0.000-0.000-0.000-0.500-0.500-0.500"


def test_the_file_holds_the_pixels_alone(file):
    assert list(load_file(file)) == ["pixels"]
