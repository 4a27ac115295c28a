"""The faults that mutation testing puts in."""

from __future__ import annotations

import ast

import pytest
from tests.mutation.mutate import mutants

pytest.importorskip("cosmic_ray", reason="cosmic-ray comes with qefpn[mutation]")

SOURCE = '''
from __future__ import annotations
__all__ = ["order", "Sizes"]

def order(count: int, seed: int | None, epoch: int, *, step: int = 2) -> list[int]:
    """Some order."""
    if seed is None:
        raise ValueError(f"no seed for {count}")
    pairs = zip(range(count), [seed, epoch], strict=True)
    return [a + step * b for a, b in pairs]
'''


def test_faults_change_what_runs_and_are_drawn_from_a_seed() -> None:
    found = mutants(SOURCE, None, seed=1)
    plain = ast.dump(ast.parse(SOURCE))
    assert all(ast.dump(ast.parse(mutant.source)) != plain for mutant in found)
    assert found == mutants(SOURCE, None, seed=1) != mutants(SOURCE, None, seed=2)
    assert found[:5] == mutants(SOURCE, 5, seed=1)
    wanted = ("LeaveOut epoch", "LeaveOut seed", "LeaveOut raise", "LeaveOut return", "ReplaceBinaryOperator_Add_Sub")
    for what in (*wanted, "ReplaceComparisonOperator_Is_IsNot", "NumberReplacer"):
        assert any(mutant.what.startswith(what) for mutant in found), what


def test_what_has_no_effect_is_no_fault() -> None:
    found = mutants(SOURCE, None, seed=1)
    assert {mutant.line for mutant in found} >= {5, 7, 8, 9, 10}
    assert not any(mutant.line in (2, 3, 6) for mutant in found)  # imports, __all__ and the docstring
    assert not any(mutant.what.startswith(("ReplaceBinaryOperator_Bit", "LeaveOut strict")) for mutant in found)


def test_every_place_gets_one_fault_before_any_gets_two() -> None:
    found = mutants(SOURCE, None, seed=3)
    places = [(mutant.line, mutant.what.partition("@")[2].partition(":")[0]) for mutant in found]
    first = len(set(places))
    assert len(set(places[:first])) == first < len(places)
