"""Every published layout, through the real loader, against outputs of the code it was published with."""

import pytest
import torch

from golden_recipe import assert_golden, golden_entries, golden_input, published_keys, published_state
from segpatch.errors import BadInput
from segpatch.models.layouts.layout import Layout
from segpatch.models.load import load_network
from segpatch.models.networks import MODELS

# Golden entry: network, and what the entry holds: "all" outputs, "main" (what forward returns), or "raw" (before
# the resize that ends the network).
GOLDEN = {
    "pidnet-s.official-augment": ("pidnet-s", "all"),
    "pidnet-s.mmseg": ("pidnet-s", "main"),
    "pidnet-l.official-augment": ("pidnet-l", "all"),
    "ddrnet-23-slim.official-augment": ("ddrnet-23-slim", "all"),
    "ddrnet-23-slim.mmseg": ("ddrnet-23-slim", "main"),
    "ddrnet-23.mmseg": ("ddrnet-23", "main"),
    "bisenetv1.coincheung-train": ("bisenetv1-r18", "all"),
    "bisenetv1-r18.mmseg": ("bisenetv1-r18", "raw"),
    "bisenetv2.coincheung-train": ("bisenetv2", "all"),
    "bisenetv2.mmseg": ("bisenetv2", "raw"),
    "icnet-r18.mmseg": ("icnet-r18", "main"),
    "icnet-r50.mmseg": ("icnet-r50", "main"),
    "icnet-r50.liminn": ("icnet-r50", "all"),
    "icnet-r50.paper-torchvision": ("icnet-r50", "all"),
    "deeplabv3plus-mobilenet.vainf": ("deeplabv3plus-mobilenet", "main"),
    "deeplabv3plus-r18.mmseg": ("deeplabv3plus-r18", "main"),
    "deeplabv3plus-r18b.mmseg": ("deeplabv3plus-r18", "main"),
    "deeplabv3plus-r50.mmseg": ("deeplabv3plus-r50", "main"),
    "deeplabv3plus-resnet50.vainf": ("deeplabv3plus-r50", "main"),
    "deeplabv3plus-resnet101.vainf": ("deeplabv3plus-r101", "main"),
    "pspnet-r18.mmseg": ("pspnet-r18", "main"),
    "pspnet-r50.mmseg": ("pspnet-r50", "main"),
    "pspnet-r50.semseg": ("pspnet-r50", "main"),
    "fcn-hr18s.mmseg": ("hrnet-w18-small", "main"),
    "fcn-hr18.mmseg": ("hrnet-w18", "main"),
    "fcn-hr48.mmseg": ("hrnet-w48", "main"),
    "ocrnet-hr18.mmseg": ("hrnet-w18-ocr", "main"),
    "ocrnet-hr48.mmseg": ("hrnet-w48-ocr", "main"),
    "hrnet-w48.official": ("hrnet-w48", "all"),
    "hrnet-w48-ocr.official": ("hrnet-w48-ocr", "all"),
    **{
        f"segformer-b{n}.{source}": (f"segformer-b{n}", "main")
        for n in (0, 1, 2, 4, 5)
        for source in ("nvlabs", "hf-transformers5", "mmseg")
    },
}
# Golden entries that take longest, and have a like one above.
LONG = {"segformer-b4.hf-transformers5", "segformer-b4.mmseg", "segformer-b5.nvlabs", "segformer-b5.mmseg"}
# Key lists without golden outputs: network.
KEYS_ONLY = {
    "pidnet-s.official": "pidnet-s",
    "pidnet-m.official": "pidnet-m",
    "pidnet-m.official-augment": "pidnet-m",
    "pidnet-m.mmseg": "pidnet-m",
    "pidnet-l.official": "pidnet-l",
    "pidnet-l.mmseg": "pidnet-l",
    "ddrnet-23-slim.official": "ddrnet-23-slim",
    "ddrnet-23.official": "ddrnet-23",
    "ddrnet-23.official-augment": "ddrnet-23",
    "bisenetv1.coincheung-eval": "bisenetv1-r18",
    "bisenetv1-r50.mmseg": "bisenetv1-r50",
    "bisenetv2.coincheung-eval": "bisenetv2",
    "icnet-r101.mmseg": "icnet-r101",
    "icnet-r101.liminn": "icnet-r101",
    "deeplabv3plus-r101.mmseg": "deeplabv3plus-r101",
    **{f"segformer-b{n}.{source}": f"segformer-b{n}" for n in range(6) for source in ("hf-hub", "smp")},
    **{f"segformer-b3.{source}": "segformer-b3" for source in ("nvlabs", "hf-transformers5", "mmseg")},
}


@pytest.mark.parametrize("entry", [pytest.param(e, marks=pytest.mark.long) if e in LONG else e for e in GOLDEN])
@torch.no_grad()
def test_a_published_file_gives_the_published_outputs(entry, tmp_path):
    name, what = GOLDEN[entry]
    torch.save({"meta": {}, "state_dict": published_state(entry)}, tmp_path / "n.pth")
    network = load_network(name, tmp_path / "n.pth")
    x = golden_input(entry)
    if what == "all":
        outputs = list(network.all_outputs(x).values())
    else:
        outputs = [network(x) if what == "main" else network.raw_logits(x)]
    assert_golden(entry, outputs)


def test_no_golden_entry_is_forgotten():
    assert GOLDEN.keys() == golden_entries().keys()


@pytest.mark.parametrize("entry", KEYS_ONLY)
def test_every_published_key_is_used_or_known_to_be_unused(entry):
    spec = MODELS[KEYS_ONLY[entry]]
    state = {key: torch.empty(shape, device="meta") for key, shape in published_keys(entry).items()}
    layout = spec.layout_of(state)
    canonical = layout.canonical(state)
    with torch.device("meta"):
        wanted = layout.build_for(canonical, 19).state_dict()
    shapes = {key: value.shape for key, value in canonical.items() if not key.startswith(layout.unused)}
    assert {k: s for k, s in shapes.items() if not k.endswith("num_batches_tracked")} == {
        k: v.shape for k, v in wanted.items() if not k.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_layouts_of_a_network_are_told_apart(name):
    layouts = MODELS[name].layouts
    assert len({layout.source for layout in layouts}) == len(layouts)
    assert len({layout.marks for layout in layouts}) == len(layouts)


def test_keys_that_become_one_are_refused():
    layout = Layout(source="x", build=torch.nn.Identity, classifier="a", rename=((r"^(one|two)$", "same"),))
    with pytest.raises(BadInput, match="two lead to same"):
        layout.canonical({"one": torch.zeros(1), "two": torch.zeros(1)})
