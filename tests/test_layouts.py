"""Every published layout, through the real loader, against outputs of the code it was published with."""

import pytest
import torch

from golden_recipe import assert_golden, golden_input, published_keys, published_state
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
    "bisenetv2.coincheung-train": ("bisenetv2", "all"),
    "segformer-b0.nvlabs": ("segformer-b0", "main"),
}
# Key lists without golden outputs: network.
KEYS_ONLY = {
    "pidnet-s.official": "pidnet-s",
    "pidnet-m.official": "pidnet-m",
    "pidnet-m.official-augment": "pidnet-m",
    "pidnet-m.mmseg": "pidnet-m",
    "pidnet-l.official": "pidnet-l",
    "pidnet-l.mmseg": "pidnet-l",
    "bisenetv2.coincheung-eval": "bisenetv2",
}


@pytest.mark.parametrize("entry", GOLDEN)
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
