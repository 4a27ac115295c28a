from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qefpn.data import MultiScaleBatchSampler, ShardSampler
from qefpn.data.splits import default_scales
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


def test_each_epoch_has_its_own_order() -> None:
    sampler = MultiScaleBatchSampler(20, 4, (64,), seed=1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first and all(key.epoch == 1 for batch in second for key in batch)
    sampler.set_epoch(0)
    assert list(sampler) == first


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


def test_fewer_pictures_than_a_batch() -> None:
    assert [len(batch) for batch in MultiScaleBatchSampler(5, 32, (64,))] == [5]
    assert [len(batch) for batch in MultiScaleBatchSampler(5, 32, (64,), rank=1, world_size=2)] == [2]
    with pytest.raises(UserError, match="do not go round"):
        MultiScaleBatchSampler(1, 32, (64,), world_size=2)


def test_batch_size_must_divide() -> None:
    with pytest.raises(UserError, match=r"data\.batch_size=32 .* multiple of their number, 3; the nearest is 33"):
        MultiScaleBatchSampler(100, 32, (64,), world_size=3)
    with pytest.raises(UserError, match=r"data\.batch_size"):
        MultiScaleBatchSampler(100, 0, (64,))


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
