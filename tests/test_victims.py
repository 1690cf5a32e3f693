"""Files for --victims."""

import pytest
import torch

from segpatch.data.classes import CAMVID, CITYSCAPES
from segpatch.errors import BadInput, Missing
from segpatch.models import load
from segpatch.models.checkpoints import write_network
from segpatch.models.layouts.layout import Layout
from segpatch.models.load import NETWORK_FILE, load_victims
from segpatch.models.networks import MODELS, NetworkSpec
from segpatch.models.settings import Settings
from segpatch.victims import read_victims
from tiny import Tiny

IMAGES = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    """A tiny network, shipped and as a file."""
    own = Layout(source="own", build=lambda classes=19, *, auxiliary=True: Tiny(classes), classifier="last.weight")
    monkeypatch.setitem(MODELS, "tiny-net", NetworkSpec("cnn", (own,)))
    monkeypatch.setattr(load, "_shipped_file", lambda name: tmp_path / "shipped" / f"{name}.safetensors")
    for path, classes in (("shipped/tiny-net", 19), ("weights/a", 19), ("weights/b", 11), ("run/network", 3)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        write_network(tmp_path / f"{path}.safetensors", Tiny(classes), {})
    return tmp_path


def write(folder, text):
    (folder / "victims.toml").write_text(text)
    return folder / "victims.toml"


def test_all_that_can_be_said(place):
    file = write(
        place,
        """
        [victim.ours]
        network = "tiny-net"
        checkpoint = "weights/a.safetensors"
        mean = [1, 2, 3.5]
        std = [4, 5, 6]
        channel_order = "bgr"
        value_range = 255
        window = 4
        stride = 3
        align_corners = true
        classes = "cityscapes"
        trained_on = "cityscapes train+val"
        """,
    )
    named = read_victims(file)
    assert named["ours"].spec == f"tiny-net={place}/weights/a.safetensors"
    assert named["ours"].settings == Settings(
        mean=(1, 2, 3.5),
        std=(4, 5, 6),
        channel_order="bgr",
        value_range=255,
        window=4,
        stride=3,
        align_corners=True,
        classes=CITYSCAPES,
        trained_on="cityscapes train+val",
    )
    (victim,) = load_victims(["ours"], named)
    assert (victim.name, victim.provenance.network) == ("ours", "tiny-net")
    assert victim.inference == {
        "mean": [1, 2, 3.5],
        "std": [4, 5, 6],
        "channel_order": "bgr",
        "value_range": 255,
        "align_corners": True,
        "window": 4,
        "stride": 3,
    }
    assert victim.provenance.trained_on == "cityscapes train+val"
    assert victim(IMAGES).shape == (1, 19, 6, 8)


def test_a_file_may_begin_with_a_byte_order_mark(place):
    file = write(place, "\ufeff[victim.tiny-net]\nwindow = 4")
    assert read_victims(file)["tiny-net"].settings.window == 4


def test_names_specs_and_files_side_by_side(place):
    file = write(place, '[victim.tiny-net]\nmean = [0, 0, 0]\n[victim.other]\nnetwork = "tiny-net"\nwindow = 0')
    named = read_victims(file)
    assert list(named) == ["tiny-net", "other"]
    spec = f"tiny-net={place}/weights/a.safetensors"
    victims = load_victims(["tiny-net", "other", spec], named)
    assert [victim.name for victim in victims] == ["tiny-net", "other", "tiny-net:a"]
    assert [victim.mean[0] for victim in victims] == [0, 0.485, 0.485], "settings are of their names only"
    with pytest.raises(BadInput, match="given twice: other"):
        load_victims(["other", "other"], named)


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ('"camvid"', CAMVID.names),
        (str(list(CAMVID.names)), CAMVID.names),
        (str([f"c{i}" for i in range(11)]), tuple(f"c{i}" for i in range(11))),
        ('"classes"', tuple(f"c{i}" for i in range(11))),
    ],
)
def test_classes_may_be_said_in_four_ways(place, said, names):
    (place / "classes").mkdir()
    (place / "classes/classes.txt").write_text("\n".join(f"c{i}" for i in range(11)))
    table = f'[victim.x]\nnetwork = "tiny-net"\ncheckpoint = "weights/b.safetensors"\nclasses = {said}'
    (victim,) = load_victims(["x"], read_victims(write(place, table)))
    assert victim.classes.names == names
    assert victim(IMAGES).shape[1] == 11


def test_the_number_of_classes_must_be_the_files(place):
    table = '[victim.x]\nnetwork = "tiny-net"\ncheckpoint = "weights/b.safetensors"\nclasses = "cityscapes"'
    with pytest.raises(BadInput, match="predicts 11 classes; the 19 of cityscapes do not name them"):
        load_victims(["x"], read_victims(write(place, table)))


def test_where_a_checkpoint_may_come_from(place, tmp_path_factory):
    (place / "hub").mkdir()
    table = """
    [victim.run]
    checkpoint = "run"
    [victim.named-run]
    network = "tiny-net"
    checkpoint = "run"
    [victim.folder]
    checkpoint = "hf:hub"
    [victim.id]
    checkpoint = "hf:owner/name"
    [victim.graph]
    checkpoint = "onnx:graph.onnx"
    [victim.tiny-net]
    checkpoint = "/elsewhere/c.pth"
    """
    specs = {name: named.spec for name, named in read_victims(write(place, table)).items()}
    assert specs == {
        "run": f"{place}/run",
        "named-run": f"tiny-net={place}/run/{NETWORK_FILE}",
        "folder": f"hf:{place}/hub",
        "id": "hf:owner/name",
        "graph": f"onnx:{place}/graph.onnx",
        "tiny-net": "tiny-net=/elsewhere/c.pth",
    }


WRONG = [
    ("[victim", "is no TOML file"),
    ("", "names no victim"),
    ("victim = 3", "names no victim"),
    ("[victims.x]", "unknown table 'victims'; did you mean 'victim'"),
    ("[victim.x]\nmeans = [0, 0, 0]", r"\[victim.x\]: unknown setting 'means'; did you mean 'mean'"),
    ("[victim.x]\nmean = [0, 0]", r"\[victim.x\]: mean: "),
    ("[victim.x]\nwindow = 'wide'", r"\[victim.x\]: window: .*, got 'wide'"),
    ("[victim.x]\nmean = [0, 0, 0]", r"\[victim.x\]: it needs a network, a checkpoint or both"),
    ("[victim.x]\ncheckpoint = 'a.pth'", r"\[victim.x\]: it does not say which network a.pth is"),
    (
        "[victim.tiny-net]\nclasses = 'kitti'",
        r"\[victim.tiny-net\]: classes = 'kitti' is neither 'cityscapes' nor",
    ),
    ("[victim.tiny-net]\nclasses = ['a', 'a']", "names 'a' twice"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_what_is_wrong_is_one_line(place, text, words):
    with pytest.raises(BadInput, match=words) as error:
        read_victims(write(place, text))
    assert "\n" not in str(error.value) and "victims.toml" in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network = 'tiny-nett'", "did you mean 'tiny-net'"),
        ("network = 'tiny-net'\nchannel_order = 'gbr'", "channel_order must be"),
        ("network = 'tiny-net'\nstd = [1, 0, 1]", "each std must be in"),
        ("network = 'tiny-net'\nstride = 9", "a stride of 9 needs a window"),
    ],
)
def test_settings_are_judged_as_a_victims_are(place, text, words):
    with pytest.raises(BadInput, match=words):
        load_victims(["x"], read_victims(write(place, f"[victim.x]\n{text}")))


def test_an_absent_file_is_missing(tmp_path):
    with pytest.raises(Missing, match="no victims file at"):
        read_victims(tmp_path / "absent.toml")
