import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import bootstrap, spearmanr
from torch.testing import assert_close

from reference import LAW, miou_loop
from segpatch.statistics import (
    LEAST_BLOCKS,
    block_ids,
    count_blocks,
    holm,
    interval,
    over_seeds,
    p_value,
    rank_interval,
    resample_counts,
    resampled_miou,
    spearman,
    thinned,
    verdict,
)

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_blocks_by_hand():
    groups = ["a"] * 5 + ["b"] * 2 + ["a"]
    assert block_ids(groups, 2).tolist() == [0, 0, 1, 1, 2, 3, 3, 4]
    assert block_ids(groups, 1).tolist() == list(range(8))
    assert block_ids(groups, 100).tolist() == [0, 0, 0, 0, 0, 1, 1, 2]
    assert block_ids(["x"] * 4, 2).tolist() == [0, 0, 1, 1]


@LAW
@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=30), st.integers(1, 7))
def test_blocks_are_runs_of_one_group_and_no_longer_than_asked(groups, length):
    blocks = block_ids(groups, length).tolist()
    assert all(after - before in (0, 1) for before, after in pairwise(blocks))
    for block in range(blocks[-1] + 1):
        inside = [group for group, of in zip(groups, blocks, strict=True) if of == block]
        assert 1 <= len(inside) <= length
        assert len(set(inside)) == 1


def test_resamples_draw_whole_blocks_as_often_as_there_are_blocks():
    blocks = block_ids(["a"] * 12, 3)
    counts = resample_counts(blocks, 200, np.random.default_rng(0))
    assert counts.shape == (200, 12)
    assert bool((counts.sum(1) == 12).all())
    by_block = counts.view(200, 4, 3)
    assert bool((by_block == by_block[..., :1]).all())
    assert_close(counts.mean(0), torch.ones(12).double(), rtol=0, atol=0.2)
    assert set(by_block.unique().tolist()) >= {0, 1, 2}


def test_resamples_of_unequal_blocks_draw_that_many_blocks():
    counts = resample_counts(torch.tensor([0, 0, 0, 1, 2]), 50, np.random.default_rng(0))
    assert bool((counts[:, [0, 3, 4]].sum(1) == 3).all())


def test_resamples_are_those_of_their_generator():
    once, again = (resample_counts(torch.arange(9), 20, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, resample_counts(torch.arange(9), 20, np.random.default_rng(6)))


def test_resampled_miou_is_the_loop():
    generator = torch.Generator().manual_seed(0)
    confusions = torch.randint(50, (6, 3, 3), generator=generator, dtype=torch.int32)
    counts = resample_counts(torch.arange(6), 10, np.random.default_rng(0))
    for value, times in zip(resampled_miou(confusions, counts), counts, strict=True):
        assert float(value) == pytest.approx(miou_loop((times.view(6, 1, 1) * confusions).sum(0)))


def test_interval_is_that_of_numpy():
    values = torch.rand(501, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert interval(values) == pytest.approx(np.percentile(values.numpy(), [2.5, 97.5]))
    assert interval(values, 0.5) == pytest.approx(np.percentile(values.numpy(), [25, 75]))
    assert interval(torch.arange(101).double(), 0.9) == pytest.approx((5, 95))


def test_the_bootstrap_agrees_with_scipy_on_a_mean():
    """Where all pixels are of one class and images of one size, mIoU is the mean share of hits."""
    hits = np.random.default_rng(0).integers(20, 80, 40)
    confusions = torch.zeros(40, 2, 2, dtype=torch.int32)
    confusions[:, 0, 0], confusions[:, 0, 1] = torch.tensor(hits), torch.tensor(100 - hits)
    counts = resample_counts(torch.arange(40), 2000, np.random.default_rng(1))
    ours = interval(resampled_miou(confusions, counts))
    theirs = bootstrap((hits / 100,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(2))
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator, covered = np.random.default_rng(0), 0
    for _ in range(100):
        sample = torch.from_numpy(generator.normal(size=50))
        counts = resample_counts(torch.arange(50), 200, generator)
        low, high = interval(counts @ sample / 50)
        covered += low <= 0 <= high
    assert 87 <= covered <= 99


def test_p_value_by_hand():
    resampled = torch.tensor([1.0, 2.0, 3.0])  # deviation 1, of two blocks sqrt(2) times as much
    wanted = 2 * stats.t.sf(2 / math.sqrt(2), 1)
    assert p_value(2.0, resampled, 2) == pytest.approx(wanted)
    assert p_value(-2.0, resampled, 2) == pytest.approx(wanted)
    assert p_value(2.0, resampled, 1) == 1, "one block says nothing of others"
    assert p_value(0.0, resampled, 20) == 1
    assert p_value(0.0, torch.zeros(9), 20) == 1 and p_value(0.5, torch.full((9,), 0.5), 20) == 0


@LAW
@given(
    st.floats(-1, 1),
    st.lists(st.sampled_from([-1.0, 0.0, 1.0, float("nan")]), min_size=1, max_size=50),
    st.integers(1, 30),
)
def test_p_value_is_a_probability_and_does_not_know_the_sign(value, values, blocks):
    resampled = torch.tensor(values)
    assert 0 <= p_value(value, resampled, blocks) <= 1
    assert p_value(value, resampled, blocks) == p_value(-value, -resampled, blocks)


def test_undefined_values_are_no_evidence():
    assert p_value(0.2, torch.full((99,), torch.nan), 20) == 1
    assert p_value(float("nan"), torch.ones(99), 20) == 1
    mostly = torch.cat([torch.full((60,), torch.nan), torch.linspace(0.19, 0.21, 39)])
    assert p_value(0.2, mostly, 20) == 1


def test_p_value_of_a_mean_is_that_of_the_t_test():
    sample = torch.from_numpy(np.random.default_rng(3).normal(0.4, 1, size=15))
    counts = resample_counts(torch.arange(15), 20000, np.random.default_rng(4))
    found = p_value(float(sample.mean()), counts @ sample / 15, 15)
    assert found == pytest.approx(stats.ttest_1samp(sample.numpy(), 0).pvalue, rel=0.05)


def test_a_plain_effect_survives_holm_over_hundreds_of_cells():
    generator = np.random.default_rng(5)
    counts = resample_counts(torch.arange(24), 2000, generator)
    plain = torch.from_numpy(generator.normal(0.03, 0.01, size=24))
    found = [p_value(float(plain.mean()), counts @ plain / 24, 24)]
    for _ in range(299):
        noise = torch.from_numpy(generator.normal(0, 0.01, size=24))
        found.append(p_value(float(noise.mean()), counts @ noise / 24, 24))
    adjusted = holm(found)
    assert adjusted[0] < 0.001 and min(adjusted[1:]) > 0.05


def test_blocks_of_images_that_were_thinned_out():
    assert thinned(10, 233, 233) == 10
    assert thinned(10, 233, 120) == 6, "every second frame: half as many of them lie as close"
    assert thinned(10, 233, 16) == thinned(1, 50, 50) == 1
    assert count_blocks(["a"] * 25 + ["b"] * 3, 10) == 4


def test_few_blocks_give_no_verdict():
    assert verdict(0.02, 0.03, blocks=LEAST_BLOCKS) == "transfers"
    assert verdict(0.02, 0.03, blocks=LEAST_BLOCKS - 1) == verdict(0.0, 0.0, blocks=1) == "undecided"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@LAW
@given(P_VALUES)
def test_holm_lies_between_the_plain_values_and_bonferroni_and_keeps_their_order(values):
    adjusted = holm(values)
    for before, after in zip(values, adjusted, strict=True):
        assert before <= after <= min(1, before * len(values))
    ranked = [after for _, after in sorted(zip(values, adjusted, strict=True))]
    assert ranked == sorted(adjusted)


@LAW
@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_rule_rejects(values, level):
    rejected = 0
    for rank, value in enumerate(sorted(values)):
        if value * (len(values) - rank) > level:
            break
        rejected += 1
    assert sum(value <= level for value in holm(values)) == rejected


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.011, 0.2, "transfers"),
        (0.01, 0.2, "undecided"),
        (-0.01, 0.01, "does not"),
        (-0.01, 0.0101, "undecided"),
        (-0.0101, 0.01, "undecided"),
        (0.0, 0.0, "does not"),
        (float("nan"), float("nan"), "undecided"),
    ],
)
def test_verdict_at_its_boundaries(low, high, wanted):
    assert verdict(low, high) == wanted


def test_verdict_takes_another_margin():
    assert verdict(0.03, 0.04, margin=0.02) == "transfers"
    assert verdict(0.03, 0.04, margin=0.05) == "does not"


@LAW
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_spearman_is_that_of_scipy(pairs):
    x, y = torch.tensor(pairs).double().T
    assume(len(set(x.tolist())) > 1 and len(set(y.tolist())) > 1)
    wanted = spearmanr(x, y).statistic
    assert float(spearman(x, y)) == pytest.approx(wanted)
    holes = torch.full((2,), torch.nan).double()
    ones = torch.ones(2).double()
    assert float(spearman(torch.cat([x, holes]), torch.cat([y, ones]))) == pytest.approx(wanted)
    assert float(spearman(torch.cat([ones, x]), torch.cat([holes, y]))) == pytest.approx(wanted)


def test_spearman_by_hand_and_in_rows():
    x = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 1, 1, 1], [1, torch.nan, torch.nan, 4]])
    y = torch.tensor([[1.0, 4, 9, 16], [3, 2, 1, 0], [1, 3, 2, 4], [1, 2, 3, 4], [4, 2, torch.nan, torch.nan]])
    rho = spearman(x.double(), y.double())
    assert rho[:3].tolist() == pytest.approx([1, -1, 0.8])
    assert bool(rho[3:].isnan().all())


def test_seeds_drawn_again_have_the_variance_of_their_mean():
    seeds = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    drawn = over_seeds(seeds.expand(40_000, 3), np.random.default_rng(6))
    assert float(drawn.var()) == pytest.approx(float(seeds.var()) / 3, rel=0.05)
    assert float(drawn.mean()) == pytest.approx(2, abs=0.02)
    assert_close(over_seeds(seeds[:, None], np.random.default_rng(6)), seeds)  # one seed: itself in each resample


def test_interval_of_a_rank_correlation_by_hand():
    low, high = rank_interval(0.5, 28)
    half = 1.96 * math.sqrt(1.06 / 25)
    assert (low, high) == pytest.approx((math.tanh(math.atanh(0.5) - half), math.tanh(math.atanh(0.5) + half)))
    assert rank_interval(0.9, 3) == (-1, 1)
    assert -1 <= rank_interval(1.0, 10)[0] <= rank_interval(1.0, 10)[1] <= 1


def test_interval_of_a_rank_correlation_covers_none_as_often_as_it_says():
    generator = torch.Generator().manual_seed(7)
    pairs = torch.rand(400, 2, 12, generator=generator)
    rho = spearman(pairs[:, 0], pairs[:, 1]).tolist()
    covered = sum(low <= 0 <= high for low, high in (rank_interval(one, 12) for one in rho))
    assert 0.92 <= covered / 400 <= 0.99
