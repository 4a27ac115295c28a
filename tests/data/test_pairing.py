"""Which picture belongs to which mask: every pair is right, and nothing is dropped without being named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qefpn.data import find_pairs
from qefpn.data.affixes import match_affixes
from qefpn.data.pairing import match_names

MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def pairing(images: list[str], masks: list[str]) -> dict[str, str]:
    match = match_names({name: name for name in images}, {name: name for name in masks})
    assert sorted([*(one for _, one, _ in match.pairs), *match.images]) == sorted(images)
    assert sorted([*(one for _, _, one in match.pairs), *match.masks]) == sorted(masks)
    return {image: mask for _, image, mask in match.pairs}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("img_{}", "mask_{}"),
        ("{}_im", "{}_gt"),
        ("IMG_{}", "{}_matte"),
        ("{}", "{}_alpha"),
        ("{}_sat", "{}_mask"),
        ("scene-{}-rgb", "scene-{}-label"),
        ("image{}", "gt{}"),
        ("{}", "F3Net_{}"),
        ("ISIC_{}", "ISIC_{}_segmentation"),
        ("a/img_{}", "a/mask_{}"),
        ("photo {}", "photo {} - cutout"),
        ("rgb8_{}_v2", "label8_{}_v2"),
    ],
)
@pytest.mark.parametrize("numbers", [range(1, 4), range(1, 25), [3, 33, 333, 3333]])
def test_a_beginning_and_an_ending_of_all(image: str, mask: str, numbers) -> None:
    images, masks = [image.format(n) for n in numbers], [mask.format(n) for n in numbers]
    assert pairing(images, masks) == dict(zip(images, masks, strict=True))
    kept = pairing([*images, "other"], [*masks[:-1], "stranger"]) if len(masks) > 5 else None
    assert kept is None or kept == dict(zip(images[:-1], masks[:-1], strict=True))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["2007_1", "2007_2", "2007_3"], ["2008_1", "2008_2", "2008_3"]),  # another year
        (["cat_photo"], ["dog_photo"]),
        (["cat_photo", "cat_house"], ["dog_photo", "dog_house"]),
        (["img_11"], ["mask_1"]),
        (["1", "2"], ["1_1", "1_2", "2_1", "2_2"]),  # two objects a picture: which is it?
        (["a", "b", "c", "cat"], ["a", "b", "c", "cat_2"]),
        (["a", "b", "c", "cat"], ["a", "b", "c", "old_cat"]),
        (["train/1"], ["test/1"]),
        (["x/train/1", "x/val/2"], ["y/test/1", "y/val/2"]),
        (["img_1", "img_2", "img_3"], ["mask_4", "mask_5", "mask_6"]),
    ],
)
def test_no_guesses(images: list[str], masks: list[str]) -> None:
    truth = {("x/val/2", "y/val/2"), *((name, name) for name in images)}
    assert {*pairing(images, masks).items()} <= truth


TEXT = st.text(st.sampled_from("ab1290_- .Cé"), min_size=1, max_size=7)
CORES = st.lists(
    st.text(st.sampled_from("abcxyz0123456789_-"), min_size=1, max_size=8).filter(
        lambda t: any(c.isalnum() for c in t)
    ),
    min_size=3,
    max_size=25,
    unique=True,
)
PICTURE_MARKS = st.sampled_from([("", ""), ("img_", ""), ("", "_im"), ("IMG-", ""), ("photo ", " rgb"), ("", ".raw")])
MASK_MARKS = st.sampled_from([("", "_mask"), ("mask_", ""), ("", "_gt"), ("gt ", " label"), ("", "-alpha"), ("", "")])


@MANY
@given(st.lists(TEXT, max_size=12, unique=True), st.lists(TEXT, max_size=12, unique=True))
def test_any_names_pair_or_are_named(images: list[str], masks: list[str]) -> None:
    found = pairing(images, masks)
    assert len(set(found.values())) == len(found)


@MANY
@given(CORES, PICTURE_MARKS, MASK_MARKS, st.randoms())
def test_every_pair_is_right(cores: list[str], picture: tuple[str, str], mask: tuple[str, str], random) -> None:
    left = {picture[0] + core + picture[1]: core for core in cores}
    right = {mask[0] + core + mask[1]: core for core in cores}
    gone = set(random.sample(cores, len(cores) // 8))
    images = [name for name, core in left.items() if core not in gone]
    masks = list(right)
    random.shuffle(masks)
    found = pairing(images, masks)
    wrong = {one: other for one, other in found.items() if left[one] != right[other]}
    assert not wrong
    if not gone and len({core.casefold() for core in cores}) == len(cores):
        assert len(found) == len(cores)


@MANY
@given(st.lists(TEXT, max_size=10, unique=True), st.lists(TEXT, max_size=10, unique=True))
def test_a_rule_is_one_for_all(images: list[str], masks: list[str]) -> None:
    """Whatever the names: every pair has the same beginnings and endings, around one and the same core."""
    found = match_affixes(images, masks)

    def rules(one: str, other: str) -> set[tuple[str, str, str, str]]:
        return {
            (one[:i], one[j:], other[:k], other[k + j - i :])
            for i in range(len(one))
            for j in range(i + 1, len(one) + 1)
            for k in range(len(other) - (j - i) + 1)
            if one[i:j] == other[k : k + j - i]
        }

    common = [rules(*pair) for pair in found.items()]
    assert not common or set.intersection(*common)
    assert len(set(found.values())) == len(found)


@settings(MANY, max_examples=200)
@given(data=st.data())
def test_generated_trees(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Every file of a data set is in a pair, or named as what it lacks."""
    root: Path = tmp_path_factory.mktemp("tree")
    folders = data.draw(
        st.sampled_from([("images", "masks"), ("a", "b"), ("photos_raw", "alphas"), ("x/Imgs", "x/GT")])
    )
    marks = data.draw(PICTURE_MARKS), data.draw(MASK_MARKS)
    cores = data.draw(CORES)
    lost = data.draw(st.sets(st.sampled_from(cores), max_size=len(cores) // 6))
    colour, mask = Image.effect_noise((16, 16), 80).convert("RGB"), Image.new("L", (16, 16))
    colour.paste((250, 20, 20), (0, 0, 8, 8))
    mask.paste(255, (0, 0, 8, 8))
    written: dict[Path, str] = {}
    for (before, after), folder, picture, suffix in zip(marks, folders, (colour, mask), (".jpg", ".png"), strict=True):
        (root / folder).mkdir(parents=True)
        for core in cores:
            if core in lost and suffix == ".png":
                continue
            path = root / folder / f"{before}{core}{after}{suffix}"
            picture.save(path)
            written[path] = core
    pairs = find_pairs(root)
    for pair in pairs:
        assert written[Path(str(pair.image))] == written[Path(str(pair.mask))]
    named = [*pairs.images_without_mask, *pairs.masks_without_image, *pairs.duplicates]
    listed = {*(root / name for name in named), *(Path(str(f)) for pair in pairs for f in (pair.image, pair.mask))}
    assert listed == set(written)
