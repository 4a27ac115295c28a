from __future__ import annotations

from collections.abc import Iterable
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from qefpn.data import MultiScaleBatchSampler, ShardSampler
from qefpn.data.options import default_scales
from qefpn.data.sampler import SampleKey, batch_scale, epoch_order, growing_scale
from qefpn.errors import UserError

SCALES = (224, 256, 288, 320, 352)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(8, 70),
    world=st.sampled_from([1, 2, 4]),
    epoch=st.integers(0, 5),
    seed=st.integers(0, 9),
)
def test_ranks_share_the_global_batch(count: int, world: int, epoch: int, seed: int) -> None:
    whole = MultiScaleBatchSampler(count, 8, SCALES, seed=seed)
    ranks = [MultiScaleBatchSampler(count, 8, SCALES, seed=seed, rank=r, world_size=world) for r in range(world)]
    seen: list[int] = []
    for number in range(len(whole)):
        parts = [rank.batch(epoch, number) for rank in ranks]
        together = [key for part in parts for key in part]
        assert {len(part) for part in parts} == {8 // world}
        assert len({key.size for key in together}) == 1  # the same size on every rank
        assert sorted(k.index for k in together) == sorted(k.index for k in whole.batch(epoch, number))
        seen += [key.index for key in together]
    assert len(seen) == len(set(seen)) == count // 8 * 8


def test_sizes_are_drawn_evenly_and_depend_on_seed_epoch_and_batch() -> None:
    sampler = MultiScaleBatchSampler(5000, 1, SCALES, seed=3, shuffle=False)
    sizes = [batch[0].size for batch in sampler]
    assert all(abs(sizes.count(size) - 1000) < 150 for size in SCALES)
    sampler.set_epoch(1)
    assert [batch[0].size for batch in sampler] != sizes
    other = MultiScaleBatchSampler(5000, 1, SCALES, seed=4, shuffle=False)
    assert [batch[0].size for batch in other] != sizes
    assert {b[0].size for b in MultiScaleBatchSampler(50, 1, (96,))} == {96}


def test_progressive_sizes_grow_with_the_place_in_training() -> None:
    """Ten batches an epoch, forty in all: half of them grow, each size as long as the others."""
    options = {"seed": 3, "progressive": 0.5, "progress": lambda batches: batches / 40}
    sampler = MultiScaleBatchSampler(20, 2, (96, 64, 80), **options)
    sizes = [sampler.batch(epoch, number)[0].size for epoch in range(4) for number in range(10)]
    assert sizes == [64] * 10 + [80] * 10 + [96] * 20
    sampler.resume(1, 8)
    assert [batch[0].size for batch in sampler] == [80, 80]
    ranks = [MultiScaleBatchSampler(20, 2, (96, 64, 80), rank=r, world_size=2, **options) for r in (0, 1)]
    assert [r.batch(2, 0)[0].size for r in ranks] == [96, 96]
    assert {b[0].size for b in MultiScaleBatchSampler(20, 2, (96,), **options)} == {96}  # nothing to grow through
    order = [[key.index for key in batch] for batch in MultiScaleBatchSampler(20, 2, (64, 80, 96), seed=3)]
    assert [[key.index for key in sampler.batch(0, number)] for number in range(10)] == order


def indices(batches: Iterable[list[SampleKey]]) -> list[list[int]]:
    """Which pictures: a key also holds its epoch, and so differs in any case."""
    return [[key.index for key in batch] for batch in batches]


def test_each_epoch_has_its_own_order() -> None:
    sampler = MultiScaleBatchSampler(20, 4, (64,), seed=1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert indices(second) != indices(first) and all(key.epoch == 1 for batch in second for key in batch)
    assert indices(second) == indices(sampler.batch(1, number) for number in range(5))
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_orders_of_seeds_and_epochs_are_permutations_and_all_differ() -> None:
    orders = [epoch_order(20, seed, epoch) for seed in range(12) for epoch in range(12)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 144
    places = np.array([np.argsort(epoch_order(10, seed=5, epoch=epoch)) for epoch in range(2000)])
    counts = np.array([np.bincount(column, minlength=10) for column in places.T])
    assert scipy.stats.chisquare(counts, axis=1).pvalue.min() > 1e-4  # no picture has a place of its own


def test_sizes_follow_neither_the_order_nor_each_other() -> None:
    """Over epochs, the size of a batch says nothing of its first picture, and none of the next batch's size."""
    drawn = [[batch_scale((64, 80, 96), 7, epoch, batch) for batch in range(2)] for epoch in range(3000)]
    first = [int(epoch_order(3, 7, epoch)[0]) for epoch in range(3000)]
    sizes, following = np.array(drawn).T
    for other in (first, following):
        table = scipy.stats.contingency.crosstab(sizes, other).count
        assert table.shape == (3, 3)
        assert scipy.stats.chi2_contingency(table).pvalue > 1e-4


def test_what_is_not_told_is_one_process_shuffled_by_seed_0() -> None:
    plain = list(MultiScaleBatchSampler(20, 4, SCALES))
    assert plain == list(MultiScaleBatchSampler(20, 4, SCALES, seed=0, rank=0, world_size=1, shuffle=True))
    assert indices(plain) != indices(MultiScaleBatchSampler(20, 4, SCALES, shuffle=False))
    in_order = indices(MultiScaleBatchSampler(20, 4, SCALES, shuffle=False))
    assert in_order == np.arange(20).reshape(5, 4).tolist()
    assert list(ShardSampler(5)) == list(range(5))


def test_sizes_that_grow_stop_at_the_largest() -> None:
    assert [growing_scale((96, 64, 80), share, 0.6) for share in (0, 0.29, 0.31, 0.59, 0.61, 1.5)] == [
        *(64, 64, 80, 80, 96, 96)
    ]
    alone = MultiScaleBatchSampler(20, 2, SCALES, seed=3, progressive=0.5)  # nobody says how far training is
    assert len({batch[0].size for batch in alone}) > 1


def test_a_key_is_a_value() -> None:
    """Workers get copies, so equal content has to be the same key, and nobody may change one."""
    assert len({SampleKey(1, 2, 64), SampleKey(1, 2, 64), SampleKey(1, 3, 64)}) == 2
    with pytest.raises(FrozenInstanceError):
        SampleKey(1, 2, 64).index = 3  # type: ignore[misc]


def test_resume_in_the_middle_of_an_epoch() -> None:
    whole = MultiScaleBatchSampler(40, 4, SCALES, seed=1)
    whole.set_epoch(2)
    expected = list(whole)
    resumed = MultiScaleBatchSampler(40, 4, SCALES, seed=1)
    resumed.resume(2, 7)
    resumed.set_epoch(2)  # as Lightning does after the loader is there
    assert len(resumed) == 10
    assert list(resumed) == expected[7:]
    resumed.set_epoch(3)
    assert len(list(resumed)) == 10
    alone = MultiScaleBatchSampler(40, 4, SCALES, seed=1)
    alone.resume(2, 7)
    assert list(alone) == expected[7:]  # resuming chooses the epoch, too
    assert MultiScaleBatchSampler(40, 4, SCALES).sampler.batch(0, 0) == next(
        iter(MultiScaleBatchSampler(40, 4, SCALES))
    )


def test_fewer_pictures_than_a_batch() -> None:
    assert [len(batch) for batch in MultiScaleBatchSampler(5, 32, (64,))] == [5]
    assert [len(batch) for batch in MultiScaleBatchSampler(5, 32, (64,), rank=1, world_size=2)] == [2]
    with pytest.raises(UserError, match="do not go round"):
        MultiScaleBatchSampler(1, 32, (64,), world_size=2)


def test_batch_size_must_divide() -> None:
    with pytest.raises(UserError, match=r"data\.batch_size=32 .* multiple of their number, 3; the nearest is 33"):
        MultiScaleBatchSampler(100, 32, (64,), world_size=3)
    with pytest.raises(UserError, match=r"the nearest is 3$"):
        MultiScaleBatchSampler(100, 1, (64,), world_size=3)
    with pytest.raises(UserError, match=r"the nearest is 6$"):
        MultiScaleBatchSampler(100, 5, (64,), world_size=3)
    with pytest.raises(UserError, match=r"data\.batch_size must be at least 1, got 0"):
        MultiScaleBatchSampler(100, 0, (64,))
    assert [len(batch) for batch in MultiScaleBatchSampler(2, 1, (64,))] == [1, 1]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 40), world=st.integers(1, 6))
def test_shards_see_every_picture_once(count: int, world: int) -> None:
    shards = [list(ShardSampler(count, rank=rank, world_size=world)) for rank in range(world)]
    assert sorted(np.concatenate(shards).astype(int).tolist()) == list(range(count))
    assert [len(ShardSampler(count, rank=r, world_size=world)) for r in range(world)] == [len(s) for s in shards]


def test_default_sizes_are_the_papers() -> None:
    assert default_scales(352) == SCALES
    assert default_scales(112) == (64, 80, 96, 112)
    assert default_scales(32) == (32,)
