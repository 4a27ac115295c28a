"""`qefpn models`: the networks that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qefpn.models.packed import DEFAULT, read_card, shipped, unknown_network

SUMMARY = """
qefpn models - the networks that come with the package: what they score, what they were trained on, their terms

qefpn models              all of them
qefpn models mobile       one in full
qefpn predict input=photo.jpg output=mask.png                       with the usual one
qefpn train init=mobile experiment=mobile data=folder data.root=DIR  on pictures of one's own
"""
FIGURES = ("max_f", "mae", "weighted_f")


def main(argv: Sequence[str]) -> int:
    """0, or 2 for a name that no network has."""
    if any(word in ("-h", "--help") for word in argv):
        print(SUMMARY.strip())
        return 0
    there = shipped()
    if unknown := next((word for word in argv if word not in there), None):
        raise unknown_network(unknown)
    if not there:
        print("no network comes with this version: train one, and give checkpoint=RUN/checkpoints/best.ckpt")
    for name, path in there.items():
        if not argv or name in argv:
            print("\n".join(described(read_card(path), path.stat().st_size, full=bool(argv))))
    return 0


def described(card: dict[str, Any], size: int, *, full: bool) -> list[str]:
    """A network in a few lines, or in all that its card says."""
    usual = " (the usual one)" if card["name"] == DEFAULT else ""
    network = card["network"]
    lines = [
        f"{card['name']}{usual}: {network['backbone']}, {card.get('parameters', 0):,} parameters, {size / 1e6:.1f} MB, "
        f"pictures at {card['image_size']} px"
    ]
    for protocol, sets in card["scores"].items():
        for dataset, scores in sets.items():
            figures = "  ".join(f"{key} {scores[key]:.3f}" for key in FIGURES if key in scores)
            lines.append(f"  {dataset} ({protocol}): {figures}")
    lines += [f"  data: {card['data']}", f"  licence: {card['licence']}"]
    if full:
        lines += [f"  {key}: {value}" for key, value in card["recipe"].items()]
        lines += [f"  {key}: {value}" for key, value in network.items()]
        lines += [f"  budget={name}: {one}" for name, one in card.get("budgets", {}).items()]
        lines.append(f"  sha256: {card['sha256']}")
    return lines
