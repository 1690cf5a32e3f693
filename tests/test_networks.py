import re

import pytest
import torch

from segpatch.errors import BadInput
from segpatch.models.networks import ALIASES, MODELS, network_name, network_spec

EACH = pytest.mark.parametrize("name", MODELS)


def keys(name, classes=7, **more):
    with torch.device("meta"):
        return MODELS[name].default.build(classes, **more).state_dict()


@EACH
def test_names_are_lower_case_with_hyphens_and_families_known(name):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert MODELS[name].family in ("cnn", "transformer")
    assert network_spec(name) is MODELS[name]


@EACH
def test_the_classifier_counts_the_classes(name):
    assert len(keys(name, 7)[MODELS[name].default.classifier]) == 7


@EACH
def test_auxiliary_heads_are_just_what_may_be_dropped(name):
    bare, whole = keys(name, auxiliary=False), keys(name)
    assert whole.keys() >= bare.keys()
    droppable = MODELS[name].default.auxiliary
    assert all(key.startswith(droppable) for key in whole.keys() - bare.keys())
    assert not any(key.startswith(droppable) for key in bare)


@EACH
def test_every_network_says_what_its_input_and_output_need(name):
    with torch.device("meta"):
        network = MODELS[name].default.build(7)
    assert network.size_multiple >= 1
    assert isinstance(network.output_align_corners, bool)
    assert callable(network.all_outputs)
    assert callable(network.training_loss)
    assert all(0 < mean < 1 for mean in MODELS[name].default.mean)
    assert all(0 < std < 1 for std in MODELS[name].default.std)


@pytest.mark.parametrize(
    ("typed", "full"), [("icnet", "icnet-r50"), ("bisenetv1", "bisenetv1-r18"), ("pidnet-s", "pidnet-s")]
)
def test_a_short_name_leads_to_a_full_one(typed, full):
    assert network_name(typed) == full
    assert network_spec(typed) is MODELS[full]


def test_short_names_hide_no_network_and_lead_to_one():
    assert not ALIASES.keys() & MODELS.keys()
    assert set(ALIASES.values()) <= MODELS.keys()


@pytest.mark.parametrize(("typed", "meant"), [("pidnet_s", "pidnet-s"), ("BiSeNetV2", "bisenetv2")])
def test_an_unknown_name_gets_the_nearest(typed, meant):
    with pytest.raises(BadInput, match=f"unknown network '{typed}'; did you mean '{meant}'"):
        network_spec(typed)


def test_a_name_like_none_gets_them_all():
    with pytest.raises(BadInput, match=r"known: .*bisenetv2.*segformer-b0") as error:
        network_spec("q")
    assert "did you mean" not in str(error.value)
