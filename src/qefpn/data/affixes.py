"""Beginnings and endings that all names of one side carry: ``img_1`` and ``mask_1``, ``0001_im`` and ``0001_gt``."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

__all__ = ["MASK_WORDS", "PICTURE_WORDS", "match_affixes", "tokens_of"]

PICTURE_WORDS = frozenset(
    re.findall(
        r"\w+",
        "image images img imgs im picture pictures pic pics photo photos rgb color colour input inputs "
        "original orig raw frame frames src source",
    )
)
"""What marks a picture in a name."""
MASK_WORDS = frozenset(
    re.findall(
        r"\w+",
        "mask masks gt gts groundtruth ground truth segmentation segmentations seg segs label labels lbl "
        "saliency sal matte mattes alpha alphas annotation annotations anno target targets silhouette "
        "silhouettes sod",
    )
)
"""What marks a mask in a name."""

_SAMPLES = 8
_MOST_CUTS = 14  # tokens of a name that are looked at: beyond them a name is cut at its ends alone
_NEARLY_ALL = 0.8
_FEW = 3

Rule = tuple[str, str, str, str]
"""What precedes and follows the common part in pictures, then in masks."""


def tokens_of(text: str) -> list[str]:
    """The words of a name in lower case: letters, without digits and separators; ``gtMask`` is two."""
    return [word.lower() for word in re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text))]


def _kind(letter: str) -> str:
    return "1" if letter.isdigit() else "a" if letter.isalpha() else letter


def _cuts(name: str) -> list[int]:
    """Where a name may be cut: never within a number or a word."""
    inner = [
        at
        for at, (one, other) in enumerate(pairwise(name), start=1)
        if _kind(one) != _kind(other) or not one.isalnum() or (one.islower() and other.isupper())
    ]
    if len(inner) > 2 * _MOST_CUTS:
        inner = inner[:_MOST_CUTS] + inner[-_MOST_CUTS:]
    return [0, *inner, len(name)]


def _parts(name: str) -> Iterator[tuple[str, str, str]]:
    """(before, core, after) for every core between two cuts that holds a letter or digit."""
    cuts = _cuts(name)
    for first, start in enumerate(cuts):
        for end in cuts[first + 1 :]:
            core = name[start:end]
            if any(letter.isalnum() for letter in core):
                yield name[:start], core, name[end:]


def _core(name: str, before: str, after: str) -> str | None:
    end = len(name) - len(after)
    if len(before) >= end or not name.startswith(before) or not name.endswith(after):
        return None
    cuts = _cuts(name) if before or after else [0, len(name)]
    core = name[len(before) : end]
    return core if len(before) in cuts and end in cuts and any(letter.isalnum() for letter in core) else None


def _apply(rule: Rule, left: Sequence[str], right: Sequence[str]) -> dict[str, str]:
    """Picture → mask where the rule leaves one and the same core of exactly one name on each side."""
    sides = []
    for names, before, after in ((left, *rule[:2]), (right, *rule[2:])):
        cores: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in names:
            folder, _, base = name.rpartition("/")
            core = _core(base, before, after)
            if core is not None:
                cores[folder, core].append(name)
        sides.append(cores)
    return {
        names[0]: sides[1][core][0]
        for core, names in sides[0].items()
        if len(names) == 1 and len(sides[1].get(core, ())) == 1
    }


def _proposals(left: Sequence[str], right: Sequence[str]) -> list[Rule]:
    """Rules that some of the pictures and masks agree with, the best supported first."""
    step = max(1, len(left) // _SAMPLES)
    wanted: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for number, name in enumerate(left[::step][:_SAMPLES]):
        for before, core, after in _parts(name.rpartition("/")[2]):
            wanted[core].append((number, before, after))
    # what most pictures share tells none of them apart
    wanted = {core: found for core, found in wanted.items() if len(found) <= max(2, _SAMPLES // 2)}
    votes: dict[Rule, set[int]] = defaultdict(set)
    for name in right:
        for before, core, after in _parts(name.rpartition("/")[2]):
            for number, *picture in wanted.get(core, ()):
                votes[picture[0], picture[1], before, after].add(number)
    ranked = sorted(votes, key=lambda rule: (-len(votes[rule]), sum(map(len, rule)), rule))
    return ranked[:40]


def _credible(rule: Rule, pairs: int, left: int, right: int, others: int, single: bool) -> bool:
    """Whether that many pairs bear a rule out, where ``others`` have paired without one."""
    pictures, masks = rule[0] + rule[1], rule[2] + rule[3]
    if not pairs or pairs < _NEARLY_ALL * min(left, right):
        return False
    if set(tokens_of(pictures)) <= PICTURE_WORDS and set(tokens_of(masks)) <= MASK_WORDS:
        return not re.search(r"\d", pictures + masks)
    nearly_all = pairs >= max(_FEW, others) and pairs >= _NEARLY_ALL * max(left, right)
    if not pictures or not masks:  # the whole name of one side is in the other's
        return nearly_all or (pairs >= (1 if single else max(2, others)) and not re.search(r"\d", pictures + masks))
    same = re.findall(r"\d+", pictures) == re.findall(r"\d+", masks)  # 2007_1 and 2008_1 are different pictures
    return nearly_all and same


def match_affixes(
    left: Collection[str], right: Collection[str], others: int = 0, single: bool = False
) -> dict[str, str]:
    """Pairs of names that differ by one beginning and one ending a side, the same for all.

    A name is cut between words, numbers and separators only. The rule has to pair nearly all names of the smaller
    side, each with exactly one; where two rules would pair a name with different ones, none is taken. Few pairs
    bear out only a rule whose words are known (``img``, ``mask``), or one where a whole name is in the other.

    Args:
        left, right: names of pictures and of masks, without suffix, with folders by ``/``.
        others: how many pairs there are already, without a rule: a rule that no known word supports has to pair as
            many.
        single: a whole name in the other is enough for one pair.

    Returns:
        picture → mask; empty where there is no such rule.
    """
    pictures, masks = sorted(left), sorted(right)
    if not pictures or not masks:
        return {}
    found = []
    for rule in _proposals(pictures, masks):
        pairs = _apply(rule, pictures, masks)
        if _credible(rule, len(pairs), len(pictures), len(masks), others, single):
            found.append(pairs)
    if not found:
        return {}
    best = max(found, key=len)
    rivals = [pairs for pairs in found if len(pairs) >= 0.9 * len(best)]
    claims = Counter(claim for pairs in rivals for claim in {*pairs.items()})
    return best if len({picture for picture, _ in claims}) == len(claims) else {}
