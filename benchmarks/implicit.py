"""The fixed-point engine against torchdeq 0.1.0: speed, memory and gradients for less, side by side in one run.

python benchmarks/implicit.py [case ...] [key=value ...]      no case: all of them

    broyden    27 Broyden steps of a cheap f at the paper's sizes, iterates compared
    anderson   the same for Anderson acceleration, m = 6
    training   the network of experiment=small: 8 + 8 Broyden steps, then the same loss with fewer evaluations
    overhead   one step of the default pyramid: share of the time outside f and its products
    memory     peak memory against the number of solver steps
    jvp        cost of f and of f with its derivative, and on which samples the derivative is taken
    quasi      a solve of the quasi residual beside a plain one
    cuda       the first case at batch 32, where there is a CUDA device

Every ratio is the median of the ratios of interleaved repeats after a warm-up: a busy moment meets both sides. A
line ends with its target and whether it is reached. The exit status is 1 where iterates that should be equal are
not, whatever the figures.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own messages

import implicit_costs
import implicit_solvers
import implicit_training
import torch
from implicit_common import Line, Options, machine

CASES: dict[str, Callable[[Options], Iterator[Line]]] = {
    "broyden": implicit_solvers.broyden,
    "anderson": implicit_solvers.anderson,
    "training": implicit_training.training,
    "overhead": implicit_costs.overhead,
    "memory": implicit_costs.memory,
    "jvp": implicit_costs.jvp,
    "quasi": implicit_costs.quasi,
    "cuda": implicit_solvers.cuda,
}


def run(cases: list[str], options: Options) -> list[Line]:
    """Print and return the lines of ``cases``."""
    torch.set_num_threads(options.threads)
    print(machine())
    lines = []
    for case in cases:
        start = time.perf_counter()
        for line in CASES[case](options):
            print(line, flush=True)
            lines.append(line)
        print(f"{'':<10}({time.perf_counter() - start:.0f} s)", flush=True)
    return lines


def main(arguments: list[str]) -> int:
    """Exit status: 2 for a word that is no case or key, 1 for iterates that differ, otherwise 0."""
    cases = [word for word in arguments if "=" not in word]
    unknown = [case for case in cases if case not in CASES]
    if unknown:
        print(f"no case {unknown[0]!r}; there are: {', '.join(CASES)}", file=sys.stderr)
        return 2
    try:
        options = Options.parse([word for word in arguments if "=" in word])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    lines = run(cases or list(CASES), options)
    wrong = [line for line in lines if line.wrong]
    for line in wrong:
        print(f"WRONG: {line.case}: {line.wrong}", file=sys.stderr)
    judged = [line for line in lines if line.holds is not None]
    print(f"{sum(bool(line.holds) for line in judged)} of {len(judged)} targets hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
