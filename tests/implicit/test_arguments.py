"""Mistakes are errors that say what was expected."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import NamedTuple

import pytest
import torch

from qefpn.implicit import (
    Anderson,
    Broyden,
    Equilibrium,
    FixedPointIteration,
    ImplicitAdjoint,
    JacobianFreeAdjoint,
    PhantomAdjoint,
    QuasiEquilibrium,
    ShineAdjoint,
    Unroll,
    UnrolledAdjoint,
    build_adjoint,
    build_residual,
    build_solver,
    describe,
    fixed_point,
)
from qefpn.implicit.driver import solve
from qefpn.implicit.layout import StateLayout
from qefpn.implicit.masks import Drops
from qefpn.implicit.problem import Problem
from qefpn.parts import allowed, build_part


def test_a_solution_shows_what_it_found():
    shown = repr(fixed_point(lambda z, x: 0.5 * z + x, torch.zeros(1, 1), (torch.ones(1, 1),)))
    assert shown.startswith("Solution(value=") and "stats=" in shown and "record" not in shown


def test_build_by_name():
    assert build_solver("broyden", max_steps=8, memory=4) == Broyden(8, memory=4)
    assert build_solver("anderson", damping=0.5) == Anderson(damping=0.5)
    assert build_solver("fixed_point") == FixedPointIteration()
    assert build_solver("unroll", max_steps=5) == Unroll(5)
    assert build_residual("equilibrium") == Equilibrium()
    assert build_residual("quasi", p=1e-4, seed=2) == QuasiEquilibrium(1e-4, 2)
    with pytest.warns(UserWarning):
        assert build_residual("literal", p=0.5).p == 0.5
    assert build_adjoint("implicit", solver={"name": "anderson", "max_steps": 3}) == ImplicitAdjoint(Anderson(3))
    assert build_adjoint("implicit", solver=None) == ImplicitAdjoint()
    assert build_adjoint("phantom", steps=2) == PhantomAdjoint(2)
    assert build_adjoint("phantom") == PhantomAdjoint(steps=5, damping=0.5)
    assert build_adjoint("jacobian_free") == JacobianFreeAdjoint()
    assert build_adjoint("shine") == ShineAdjoint()
    assert build_adjoint("unrolled", checkpoint=True) == UnrolledAdjoint(True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: build_solver("broydn"), ValueError, "did you mean 'broyden'"),
        (lambda: build_residual("none"), ValueError, "there are: equilibrium, literal, quasi"),
        (
            lambda: build_solver("broyden", maxsteps=3),
            TypeError,
            "did you mean 'max_steps'.*takes: max_steps, rtol",
        ),
        (lambda: build_adjoint("jacobian_free", steps=3), TypeError, "takes none"),
        (lambda: build_solver("unroll", max_steps=0), ValueError, "max_steps must be at least 1, got 0"),
        (lambda: Broyden(max_steps=2.5), TypeError, "max_steps must be a whole number"),
        (lambda: Broyden(rtol=-1e-3), ValueError, "rtol must be in"),
        (lambda: Anderson(atol=-1.0), ValueError, "atol"),
        (lambda: Broyden(rtol=float("nan")), ValueError, "rtol"),
        (lambda: Broyden(memory=0), ValueError, "memory must be at least 1"),
        (lambda: Broyden(alpha=0.0), ValueError, r"alpha must be in \(0, 1\]"),
        (lambda: Anderson(damping=0.0), ValueError, r"damping must be in \(0, 1\]"),
        (lambda: FixedPointIteration(damping=1.5), ValueError, "damping"),
        (lambda: FixedPointIteration(damping=0.0), ValueError, r"damping must be in \(0, 1\]"),
        (lambda: PhantomAdjoint(damping=0.0), ValueError, r"damping must be in \(0, 1\]"),
        (lambda: Anderson(regularization="x"), TypeError, "regularization must be a number"),
        (lambda: QuasiEquilibrium(p=1.01), ValueError, r"p must be in \[0, 1\]"),
        (lambda: QuasiEquilibrium(p=-1e-9), ValueError, "p must be in"),
        (lambda: QuasiEquilibrium(seed=1.5), TypeError, "QuasiEquilibrium: seed must be a whole number"),
        (lambda: QuasiEquilibrium(seed=-(2**63) - 1), ValueError, "seed must be at least -9223372036854775808"),
        (lambda: PhantomAdjoint(steps=0), ValueError, "steps"),
        (lambda: ImplicitAdjoint(solver="broyden"), TypeError, "must be a solver or None"),
    ],
)
def test_bad_settings(call, error, message):
    with pytest.raises(error, match=message):
        call()


def tanh(z, *args):
    return torch.tanh(z)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((tanh, None), {}, TypeError, "z0 must be a tensor or a tuple"),
        ((tanh, torch.zeros(3)), {}, ValueError, "batch axis"),
        ((tanh, torch.zeros(3, 2, dtype=torch.int64)), {}, TypeError, "floating"),
        ((tanh, torch.zeros(3, 0)), {}, ValueError, "a sample is empty"),
        ((tanh, (torch.zeros(3, 2), torch.zeros(3, 0, 4))), {}, ValueError, r"a sample is empty: \(3, 0, 4\)"),
        ((tanh, (torch.zeros(3, 2), torch.zeros(2, 2))), {}, ValueError, "batch sizes differ"),
        ((tanh, (torch.zeros(3, 2), torch.zeros(3, 2).double())), {}, ValueError, "types or devices differ"),
        ((tanh, torch.zeros(3, 2), torch.zeros(3, 2)), {}, TypeError, r"args must be a tuple.*write \(x,\)"),
        ((tanh, torch.zeros(3, 2)), {"solver": "broyden"}, TypeError, "solver must be a Solver"),
        ((tanh, torch.zeros(3, 2)), {"residual": "quasi"}, TypeError, "residual must be a Residual"),
        ((tanh, torch.zeros(3, 2)), {"adjoint": "implicit"}, TypeError, "adjoint must be an Adjoint"),
        (
            (tanh, torch.zeros(3, 2)),
            {"adjoint": UnrolledAdjoint()},
            ValueError,
            "Unroll or FixedPointIteration",
        ),
        (
            (tanh, torch.zeros(3, 2)),
            {"adjoint": ShineAdjoint(), "solver": Anderson()},
            ValueError,
            "take Broyden",
        ),
        ((tanh, torch.zeros(3, 2)), {"keys": torch.zeros(3)}, TypeError, "integers"),
        ((tanh, torch.zeros(3, 2)), {"keys": torch.arange(2)}, ValueError, r"\(3,\), got \(2,\)"),
        ((lambda z: z[:, :1], torch.zeros(3, 2)), {}, ValueError, r"expected \(3, 2\), got \(3, 1\)"),
        ((lambda z: z[:1], torch.zeros(3, 2)), {}, ValueError, r"expected \(3, 2\), got \(1, 2\)"),
        ((lambda z: (z, z), torch.zeros(3, 2)), {}, ValueError, "one tensor.*tuple of 2"),
        (
            (lambda z: z[0], (torch.zeros(3, 2),)),
            {},
            ValueError,
            "tuple of 1 tensors and returned one tensor",
        ),
        ((lambda z: z.long(), torch.zeros(3, 2)), {}, ValueError, "floating type"),
        ((lambda z: None, torch.zeros(3, 2)), {}, ValueError, "got NoneType"),
        ((lambda z: z.to("meta"), torch.zeros(3, 2)), {}, ValueError, "z0 is on cpu.*meta"),
        (
            (tanh, torch.zeros(3, 2, device="meta"), (torch.zeros(3, 2),)),
            {},
            ValueError,
            "z0 is on meta, but argument 0 of f is on cpu",
        ),
        ((tanh, torch.zeros(3, 2)), {"intermediate": (1.5,)}, TypeError, "intermediate must be a whole number"),
    ],
)
def test_bad_calls(arguments, options, error, message):
    with pytest.raises(error, match=message):
        fixed_point(*arguments, **options)


@pytest.mark.parametrize("solver", [Broyden(), Broyden(3, 0.0), Anderson(), FixedPointIteration(), Unroll()], ids=repr)
@pytest.mark.parametrize("residual", [Equilibrium(), QuasiEquilibrium(p=0.5)], ids=repr)
def test_an_empty_batch_has_an_empty_solution(solver, residual):
    """The last batch of a shard may be one, and every process has to run its backward pass."""
    weight = torch.eye(2).mul(0.5).requires_grad_()
    adjoints = [None, PhantomAdjoint(), JacobianFreeAdjoint(), *([ShineAdjoint()] if type(solver) is Broyden else [])]
    for adjoint in adjoints:
        x = torch.zeros(0, 3, 2, requires_grad=True)
        solution = fixed_point(
            lambda z, x: torch.tanh(z @ weight + x), torch.zeros(0, 3, 2), (x,),
            solver=solver, residual=residual, adjoint=adjoint, keys=torch.arange(0),
        )  # fmt: skip
        assert solution.value.shape == (0, 3, 2) and solution.stats.steps.shape == (0,)
        solution.value.sum().backward()
        assert x.grad is not None and x.grad.shape == (0, 3, 2)
        assert weight.grad is not None and torch.equal(weight.grad, torch.zeros(2, 2))


def test_whole_numbers_are_numbers_and_bounds_belong_to_the_range():
    assert Anderson(1, rtol=0, atol=0, memory=1, damping=1, regularization=0).damping == 1
    assert FixedPointIteration(damping=1).damping == 1 and QuasiEquilibrium(p=0).p == 0 and QuasiEquilibrium(p=1).p == 1
    assert PhantomAdjoint(steps=1, damping=1).steps == 1
    assert QuasiEquilibrium(seed=-(2**63)).seed == -(2**63)


SETTINGS = [
    *(Anderson(), Broyden(), FixedPointIteration(), Unroll(), Equilibrium(), QuasiEquilibrium()),
    *(ImplicitAdjoint(), PhantomAdjoint(), JacobianFreeAdjoint(), ShineAdjoint(), UnrolledAdjoint()),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
def test_settings_are_values(settings):
    """Equal settings are one key of a table, and nobody changes those that others hold."""
    assert {settings: 1}[type(settings)()] == 1
    for name in vars(settings) or ("anything",):
        with pytest.raises(FrozenInstanceError):
            setattr(settings, name, 1)


BUILDERS = {"Adjoint": build_adjoint, "Equilibrium": build_residual}
OTHER_SETTINGS = [*SETTINGS, Anderson(3, 1e-2, memory=4), QuasiEquilibrium(1e-3, 2), ImplicitAdjoint(Broyden(5, 1e-2))]


@pytest.mark.parametrize("settings", OTHER_SETTINGS, ids=repr)
def test_what_is_described_is_built_again(settings):
    described = describe(settings)
    build = next((b for end, b in BUILDERS.items() if type(settings).__name__.endswith(end)), build_solver)
    assert build(**described) == settings
    assert described["name"] in repr(described) and all(not isinstance(v, Broyden) for v in described.values())


@dataclass(frozen=True)
class Named(Broyden):
    """Of somebody's own: no name stands for it."""

    gain: float = 2.0


def test_one_of_somebody_s_own_is_described_by_its_class():
    described = describe(Named(3))
    assert described["_target_"].endswith("test_arguments.Named") and described["gain"] == 2.0
    with allowed(["tests"]):
        assert build_part(described, Named, "solver") == Named(3)


@pytest.mark.parametrize("record", [StateLayout, Drops, Problem, type(StateLayout.of(torch.ones(1, 2)).leaves[0])])
def test_records_cannot_be_changed(record):
    with pytest.raises(FrozenInstanceError):
        record.__setattr__(object.__new__(record), "anything", 1)


@pytest.mark.parametrize("shape", [(2, 4), (4, 4), (3, 3), (3, 5), (3,), (3, 4, 1), (12,)])
def test_another_shape_than_the_state_s_is_told(shape):
    for state, answer in ((torch.ones(3, 4), torch.ones(shape)), ((torch.ones(3, 4),), (torch.ones(shape),))):
        with pytest.raises(ValueError, match=r"keep the shape of the state: expected \(3, 4\), got"):
            fixed_point(lambda z, answer=answer: answer, state)


def test_a_solution_cannot_be_changed():
    solution = fixed_point(lambda z: 0.5 * z, torch.ones(2, 3))
    inner = solve(Broyden(3), lambda z: 0.5 * z, torch.ones(2, 3))
    for record, name in ((solution, "value"), (solution.stats, "steps"), (inner, "value")):
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, None)


def test_a_list_is_a_tuple_of_levels():
    levels = [torch.zeros(3, 2), torch.zeros(3, 4)]
    given = fixed_point(lambda z: tuple(0.5 * part + 1 for part in z), levels, solver=Broyden(20, 1e-6))
    same = fixed_point(lambda z: [0.5 * part + 1 for part in z], tuple(levels), solver=Broyden(20, 1e-6))
    for one, other, level in zip(given.value, same.value, levels, strict=True):
        assert torch.equal(one, other) and one.shape == level.shape
        torch.testing.assert_close(one, torch.full_like(one, 2.0))


class Pair(NamedTuple):
    x: torch.Tensor
    name: str


@pytest.mark.parametrize("half", [False, True])
def test_arguments_of_any_structure_are_selected_and_widened(half):
    """A part of the batch gets its part of tensors inside of tuples, lists and dicts; autocast finds them there."""
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16 if half else torch.float32)
    seen = []

    def f(z, pair, listed, named):
        assert type(pair) is Pair and type(listed) is list and (pair.name, listed[1], named["n"]) == ("a", 3, None)
        parts = (pair.x, listed[0], named["x"][0])
        assert {part.dtype for part in parts} == {torch.float32} and {len(part) for part in parts} == {len(z)}
        seen.append(len(z))
        return 0.3 * torch.tanh(z) + sum(parts)

    options = {"residual": QuasiEquilibrium(p=0.04), "keys": torch.arange(8), "solver": Broyden(20, 1e-5)}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        found = fixed_point(f, torch.zeros(8, 12), (Pair(x, "a"), [x, 3], {"x": (x,), "n": None}), **options)
        plain = fixed_point(lambda z, x: 0.3 * torch.tanh(z) + 3 * x, torch.zeros(8, 12), (x.float(),), **options)
    torch.testing.assert_close(found.value, plain.value)
    assert 0 < min(seen) < 8, "some samples have a drop and some have none"


def test_unroll_takes_the_unrolled_adjoint_unless_told_otherwise():
    z0 = torch.ones(2, 3, requires_grad=True)
    assert torch.autograd.grad(fixed_point(tanh, z0, solver=Unroll(2)).value.sum(), z0)[0].abs().sum() > 0
    told = fixed_point(lambda z: 0.5 * torch.tanh(z), z0, solver=Unroll(2), adjoint=ImplicitAdjoint())
    assert not told.value.requires_grad


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("solver", [Broyden(3), Anderson(3), FixedPointIteration(3), Unroll(3)], ids=type)
@pytest.mark.parametrize("what", ["state", "argument"])
def test_a_function_that_writes_into_its_argument_is_told(context, solver, what):
    if what == "argument" and context is torch.inference_mode:
        pytest.skip("tensors made in inference mode do not tell that they were written to")

    def on_argument(z, x):
        x.mul_(0.5)
        return 0.5 * z + x

    with context():
        z0, x = torch.zeros(2, 3), torch.ones(2, 3)
        f, args = (on_argument, (x,)) if what == "argument" else (lambda z: z.mul_(0.5).add_(1.0), ())
        with pytest.raises((ValueError, RuntimeError), match="writes into its argument|in-place"):
            fixed_point(f, z0, args, solver=solver)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("solver", [Broyden(9), Anderson(9), FixedPointIteration(9)], ids=type)
def test_a_function_may_write_into_a_level_of_a_pyramid(context, solver):
    """Levels are copies."""

    def written(z):
        return z[0] * 0.5 + 1.0, z[1].mul_(0.25).add_(3.0)

    with context():
        z0 = (torch.zeros(2, 3), torch.ones(2, 4))
        found = fixed_point(written, z0, solver=solver).value
        clean = fixed_point(lambda z: (z[0] * 0.5 + 1.0, z[1] * 0.25 + 3.0), z0, solver=solver).value
    for one, other in zip(found, clean, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(found[1], torch.full((2, 4), 4.0), rtol=1e-2, atol=0)
