import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from golden_recipe import fill
from segpatch.attack import train_patch
from segpatch.attack_config import PRESETS
from segpatch.data.classes import CAMVID, CITYSCAPES
from segpatch.errors import BadInput, Missing
from segpatch.models.checkpoints import file_sha256
from segpatch.models.hf import hf_victim
from segpatch.models.load import load_victim
from segpatch.models.victim import IMAGENET_MEAN, IMAGENET_STD
from tiny import pictures

transformers = pytest.importorskip("transformers")
hub = pytest.importorskip("huggingface_hub")

IMAGES = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
THREE = {0: "road", 1: "car", 2: "sky"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}


def segformer(**config):
    """A small SegFormer of transformers with weights that leave its logits alive."""
    small = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 20, 32], "num_attention_heads": [1, 2, 5, 8]}
    made = transformers.SegformerConfig(**{"decoder_hidden_size": 16, **small, "id2label": THREE, **config})
    return fill(transformers.SegformerForSemanticSegmentation(made)).float()


def saved(folder, network=None, preprocessor=None):
    """A folder as save_pretrained writes it; its path as the user types it."""
    (network or segformer()).save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return str(folder)


def refused(source, kind=BadInput):
    """The message, which must be one line that names the source."""
    with pytest.raises(kind) as error:
        hf_victim(source)
    message = str(error.value)
    assert "\n" not in message
    assert source in message
    return message


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"decoder_hidden_size": 10**7}, "asks for .* weights, it holds"),
        ({"hidden_sizes": [8, 16, 20, 3_000_000]}, "asks for .* weights, it holds"),
        ({"depths": [1, 1, 1, 20_000]}, r"config.json asks for more than 1000 layers \(depths\)"),
        ({"hidden_sizes": "x"}, "transformers cannot (build the network|read its config.json)"),
        ({"num_encoder_blocks": 9}, "transformers cannot build the network"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            r"transformers cannot build the network \(ImportError: .*quantization requires",
        ),
    ],
)
def test_a_config_that_asks_for_more_than_the_weights_is_not_believed(tmp_path, said, words):
    source = saved(tmp_path / "mine")
    config = tmp_path / "mine/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **said}))
    assert re.search(words, refused(source))


@pytest.mark.parametrize("size", [(64, 96), (45, 77)])
def test_logits_are_those_of_transformers_at_the_size_of_the_image(tmp_path, size):
    network = segformer()
    victim = hf_victim(saved(tmp_path / "mine", network))
    images = IMAGES[..., : size[0], : size[1]]
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    logits = network((images - mean) / std).logits
    expected = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(victim(images), expected, rtol=1e-4, atol=1e-5)


def test_a_victim_says_where_it_comes_from(tmp_path):
    victim = hf_victim(saved(tmp_path / "mine"))
    about = victim.provenance
    assert (victim.name, about.network, about.family) == ("mine", "segformer", "transformer")
    assert about.checkpoint == "mine/model.safetensors"
    assert about.sha256 == file_sha256(tmp_path / "mine" / "model.safetensors")
    assert about.preprocessing == "mean and std of ImageNet: no preprocessor_config.json at hand"


def test_nothing_is_printed_and_the_log_is_left_as_it_was(tmp_path, capfd):
    folder = saved(tmp_path)
    logging = transformers.utils.logging
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    capfd.readouterr()
    hf_victim(folder)
    save_file({"more": torch.zeros(1)}, tmp_path / "model.safetensors")
    refused(folder)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_the_patch_is_that_of_the_network_written_here(tmp_path):
    config = transformers.SegformerConfig(num_labels=19)
    network = fill(transformers.SegformerForSemanticSegmentation(config))
    folder = saved(tmp_path / "mine", network)
    victims = [hf_victim(folder), load_victim(f"segformer-b0={folder}/model.safetensors")]
    short = {"steps": 3, "batch_size": 2, "crop": (48, 48), "patch_size": (16, 16)}
    attack = replace(PRESETS["strong"], **short, select="last", held_out=0)
    one, other = (train_patch([victim], pictures(4, 48, 64, classes=19), attack) for victim in victims)
    assert (one.pixels - 0.5).abs().mean() > 0.01, "it has moved"
    torch.testing.assert_close(one.pixels, other.pixels, rtol=0, atol=1e-6)


def test_nineteen_classes_of_cityscapes_are_cityscapes_however_spelled(tmp_path):
    names = [name.title().replace(" ", "-") for name in CITYSCAPES.names]
    assert "Traffic-Light" in names
    for labels in (names, [f"LABEL_{index}" for index in range(19)]):
        network = segformer(id2label=dict(enumerate(labels)))
        assert hf_victim(saved(tmp_path / "mine", network)).classes is CITYSCAPES
    turned = segformer(id2label=dict(enumerate(names[::-1])))
    assert hf_victim(saved(tmp_path / "mine", turned)).classes.names == tuple(names[::-1])


def test_other_classes_keep_their_names(tmp_path):
    victim = hf_victim(saved(tmp_path / "mine"))
    assert (victim.classes.name, victim.classes.names) == ("mine", ("road", "car", "sky"))
    assert len(set(victim.classes.colours)) == 3
    assert victim(IMAGES).shape == (1, 3, 64, 96)
    twice = segformer(id2label={0: "door", 1: "car", 2: "door"})
    assert hf_victim(saved(tmp_path / "mine", twice)).classes.names == ("door (0)", "car", "door (2)")
    camvid = segformer(id2label=dict(enumerate(CAMVID.names)))
    assert hf_victim(saved(tmp_path / "mine", camvid)).classes is CAMVID


HALF = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}


@pytest.mark.parametrize(
    ("preprocessor", "mean", "std", "value_range", "order"),
    [
        (HALF, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), 1, "rgb"),
        ({**HALF, "do_normalize": True, "size": {"height": 7, "width": 7}}, *HALF.values(), 1, "rgb"),
        ({"image_mean": 0.5, "image_std": 0.25}, (0.5,) * 3, (0.25,) * 3, 1, "rgb"),
        ({**HALF, "do_rescale": True, "rescale_factor": 1 / 127.5}, *HALF.values(), 2, "rgb"),
        ({"image_mean": [120] * 3, "image_std": [60] * 3, "do_rescale": False}, (120,) * 3, (60,) * 3, 255, "rgb"),
        ({**HALF, "do_normalize": False}, (0,) * 3, (1,) * 3, 1, "rgb"),
        ({"do_rescale": True, "do_flip_channel_order": True}, (0,) * 3, (1,) * 3, 1, "bgr"),  # MobileViT's
        ({"do_resize": True}, IMAGENET_MEAN, IMAGENET_STD, 1, "rgb"),
    ],
)
def test_preprocessing_is_that_of_the_checkpoint(tmp_path, preprocessor, mean, std, value_range, order):
    victim = hf_victim(saved(tmp_path, preprocessor=preprocessor))
    assert (victim.mean, victim.std) == (tuple(mean), tuple(std))
    assert (victim.value_range, victim.channel_order) == (value_range, order)
    assumed = "image_mean" not in preprocessor and "do_flip_channel_order" not in preprocessor
    assert (victim.provenance.preprocessing is not None) == assumed


def test_the_processor_of_transformers_agrees(tmp_path):
    """Its own file, read by us, gives the tensor that it gives."""
    processor = transformers.SegformerImageProcessorPil(do_resize=False, image_mean=[0.1, 0.2, 0.3])
    processor.save_pretrained(tmp_path)
    victim = hf_victim(saved(tmp_path))
    pixels = pictures(1)[0][0]
    theirs = processor(pixels.numpy(), return_tensors="pt", input_data_format="channels_first")["pixel_values"]
    torch.testing.assert_close(victim.normalise(pixels[None].float() / 255), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("[1]", "expected a table in preprocessor_config.json"),
        ("{", "preprocessor_config.json is no JSON"),
        ('{"image_mean": [1, 2], "image_std": [1, 2]}', "preprocessor_config.json cannot be used"),
        ('{"image_mean": [1%s, 0, 0], "image_std": 1}' % ("0" * 400), "preprocessor_config.json cannot be used"),
        ('{"rescale_factor": "x"}', "preprocessor_config.json cannot be used"),
    ],
)
def test_preprocessing_that_cannot_be_read_is_refused(tmp_path, broken, words):
    folder = saved(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(broken)
    assert words in refused(folder)


def other_networks():
    """A network of each kind that has something of its own, and its family, window and size multiple."""
    convnext = transformers.ConvNextConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    upernet = {"backbone_config": convnext, "hidden_size": 8, "auxiliary_in_channels": 8, "auxiliary_channels": 8}
    beit = {**SMALL, "image_size": 64, "out_indices": [1, 2, 3, 4]}
    head = {"upsample_out_channels": [8], "conv_out_channels": [8]}
    return {
        "UperNet": (upernet, "cnn", None, 1),
        "MobileNetV2": ({"depth_multiplier": 0.1, "min_depth": 4}, "cnn", None, 1),
        "Beit": (beit, "transformer", 64, 64),
        "Sapiens2": ({**SMALL, "head_config": head}, "transformer", None, 16),
    }


@pytest.mark.parametrize("kind", ["UperNet", "MobileNetV2", "Beit", "Sapiens2"])
def test_other_networks_of_transformers_work_at_any_size(tmp_path, kind):
    options, family, window, multiple = other_networks()[kind]
    config = getattr(transformers, f"{kind}Config")(num_labels=3, **options)
    network = fill(getattr(transformers, f"{kind}ForSemanticSegmentation")(config)).float()
    victim = hf_victim(saved(tmp_path, network))
    assert (victim.provenance.family, victim.window, victim.size_multiple) == (family, window, multiple)
    images = IMAGES[..., :50, :77].clone().requires_grad_()
    logits = victim(images)
    assert logits.shape == (1, 3, 50, 77)
    (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    assert (gradient != 0).float().mean() > 0.9


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_double_file_stays_double_and_a_half_one_becomes_single(tmp_path, dtype):
    victim = hf_victim(saved(tmp_path, segformer().to(dtype)))
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {parameter.dtype for parameter in victim.module.parameters()} == {wanted}


def test_safetensors_are_taken_before_a_pickle_and_parts_are_put_together(tmp_path):
    whole = hf_victim(saved(tmp_path / "a"))
    state = load_file(tmp_path / "a/model.safetensors")
    torch.save({key: value * 2 for key, value in state.items()}, tmp_path / "a/pytorch_model.bin")
    assert hf_victim(str(tmp_path / "a")).provenance.checkpoint == "a/model.safetensors"
    torch.save(state, tmp_path / "a/pytorch_model.bin")
    (tmp_path / "a/model.safetensors").unlink()
    pickled = hf_victim(str(tmp_path / "a"))
    segformer().save_pretrained(tmp_path / "b", max_shard_size="50KB")
    parts = hf_victim(str(tmp_path / "b"))
    assert len(list(tmp_path.glob("b/model-*.safetensors"))) > 1
    assert pickled.provenance.checkpoint == "a/pytorch_model.bin"
    assert len({victim.provenance.sha256 for victim in (whole, pickled, parts)}) == 3
    assert torch.equal(pickled(IMAGES), whole(IMAGES))
    assert torch.equal(parts(IMAGES), whole(IMAGES))
    next(tmp_path.glob("b/model-*.safetensors")).unlink()
    assert ", which its model.safetensors.index.json names; download it again" in refused(
        str(tmp_path / "b"), Missing
    )


@pytest.mark.parametrize("index", ['{"weight_map": {"a": "../a.safetensors"}}', "{}"])
def test_an_index_that_leads_elsewhere_is_refused(tmp_path, index):
    folder = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json does not say which files hold the weights" in refused(folder)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path):
    folder = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1), "hook": Harmful(tmp_path / "it ran")}, tmp_path / "pytorch_model.bin")
    refused(folder)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("model_type", ["segpatch-unheard-of", "bert"])
def test_code_of_the_checkpoint_is_not_run(tmp_path, model_type):
    trace = tmp_path / "it ran"
    (tmp_path / "code.py").write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\n")
    code = {"AutoConfig": "code.Config", "AutoModelForSemanticSegmentation": "code.Network"}
    config = {"model_type": model_type, "auto_map": code}
    (tmp_path / "config.json").write_text(json.dumps(config))
    message = refused(str(tmp_path))
    assert ("code of its own, which segpatch does not run" in message) == (model_type != "bert")
    assert not trace.exists()


def test_weights_must_be_just_those_of_the_network(tmp_path):
    folder = saved(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "decode_head.classifier.bias"
    less = {key: value for key, value in state.items() if key != name}
    for changed, said in (
        (less, "1 keys missing, 0 unknown, 0 of another shape (decode_head.classifier.bias)"),
        ({**state, "more": torch.zeros(1)}, "0 keys missing, 1 unknown, 0 of another shape (more)"),
        ({**state, name: torch.zeros(7)}, "0 keys missing, 0 unknown, 1 of another shape"),
    ):
        save_file(changed, tmp_path / "model.safetensors")
        assert said in refused(folder)


def test_a_network_for_something_else_is_refused(tmp_path):
    classifier = transformers.SegformerForImageClassification(segformer().config)
    assert "does not hold the weights of a segformer for semantic" in refused(saved(tmp_path / "a", classifier))
    for kind, said in (
        ("Mask2Former", "classifies masks: it gives no logits for each pixel"),
        ("Bert", "is no semantic"),
    ):
        getattr(transformers, f"{kind}Config")().save_pretrained(tmp_path / kind)
        assert said in refused(str(tmp_path / kind))


def test_what_is_not_there_is_missing(tmp_path, monkeypatch):
    assert "holds no config.json" in refused(str(tmp_path), Missing)
    segformer().config.save_pretrained(tmp_path)
    assert "expected model.safetensors or pytorch_model.bin" in refused(str(tmp_path), Missing)
    (tmp_path / "config.json").write_text('{"model_type": "segformer", "depths": "x"}')
    assert "cannot read its config.json" in refused(str(tmp_path))
    assert "neither a folder here nor an id" in refused("/no/such/folder", Missing)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'segpatch[hf]'" in refused("any/network", Missing)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, empty, and no network."""
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def cached(cache, name, files):
    """A network of the hub in the cache, with some of the files of a folder."""
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(COMMIT)
    (place / "snapshots" / COMMIT).mkdir(parents=True)
    for file in files:
        (place / "snapshots" / COMMIT / file.name).write_bytes(file.read_bytes())


def test_what_is_in_the_cache_needs_no_network(tmp_path, cache):
    saved(tmp_path / "mine", preprocessor=HALF)
    cached(cache, "owner/net", (tmp_path / "mine").iterdir())
    victim = hf_victim("owner/net")
    assert (victim.name, victim.mean) == ("net", (0.5, 0.4, 0.3))
    assert victim.provenance.checkpoint == f"owner/net@{COMMIT[:12]}/model.safetensors"
    assert torch.equal(victim(IMAGES), hf_victim(str(tmp_path / "mine"))(IMAGES))


def test_without_network_what_is_lacking_is_said(tmp_path, cache):
    assert "the hub cannot be reached" in refused("owner/net", Missing)
    segformer().config.save_pretrained(tmp_path)
    cached(cache, "owner/net", [tmp_path / "config.json"])
    assert "has no weights that can be had" in refused("owner/net", Missing)


def test_files_are_downloaded_at_one_state_of_the_hub(tmp_path, cache, monkeypatch):
    folder = tmp_path / "snapshots" / COMMIT
    saved(folder)
    asked = []

    def download(source, name, *, revision):
        asked.append((name, revision))
        if not (folder / name).is_file():
            raise hub.errors.EntryNotFoundError("404")
        return str(folder / name)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert hf_victim("owner/net").provenance.checkpoint == f"owner/net@{COMMIT[:12]}/model.safetensors"
    assert asked[0] == ("config.json", None)
    assert {revision for _, revision in asked[1:]} == {COMMIT}
    (folder / "config.json").unlink()
    assert "it is no network of transformers" in refused("owner/net", Missing)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("GatedRepoError", "is gated"),
        ("RepositoryNotFoundError", "nothing on the hub"),
        ("HfHubHTTPError", "try again"),
    ],
)
def test_troubles_of_the_hub_are_one_line(cache, monkeypatch, error, said):
    kind = getattr(hub.errors, error)

    def download(*_, **__):
        raise kind.__new__(kind, "some\nlines")  # its __init__ wants the response of a server

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert said in refused("owner/net", Missing)
