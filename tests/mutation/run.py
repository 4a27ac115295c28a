"""Mutation testing: put small faults into a module, one at a time, and see whether its tests notice.

    python -m tests.mutation.run [implicit losses metrics sampler schedule] [--limit 40] [--seed 0] [--only PATTERN]

Each fault lives in the memory of a process of its own, forked after torch has been imported: no file changes, and a
fault costs what its tests cost. A fault that hangs its tests counts as noticed. Faults that change nothing that could
be observed are listed, with the reason, in ``equivalent.txt`` beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from tests.mutation.mutate import Mutant, mutants

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"
METRICS = (
    "scores",
    "histogram",
    "histogram_scores",
    "weighted_f",
    "figures",
    "inputs",
    "protocol",
    "saliency_metrics",
)
PRELOADED = ("qefpn.data", "qefpn.implicit", "qefpn.losses", "qefpn.metrics", "qefpn.training.schedule")
PRELOADED += ("numba", "scipy.optimize", "hypothesis", "kornia", "torchdeq", "py_sod_metrics", "_pytest.doctest")


@dataclass(frozen=True)
class Suite:
    """Which tests judge which modules.

    Args:
        modules: patterns below ``src/qefpn``.
        tests: files or folders below ``tests``; quick tests run first.
        without: test files that are left out.
        environment: variables to set.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


SUITES = {
    "implicit": Suite(("implicit/*.py", "implicit/*/*.py"), ("implicit",), without=("implicit/test_ddp.py",)),
    "losses": Suite(("losses/*.py",), ("losses",)),
    # uncompiled, since machine code from numba's cache would not have the fault
    "metrics": Suite(
        tuple(f"metrics/{name}.py" for name in METRICS),
        ("metrics",),
        ("metrics/test_kernels.py", "metrics/test_bootstrap.py"),
        {"NUMBA_DISABLE_JIT": "1"},
    ),
    "sampler": Suite(("data/sampler.py",), ("data/test_sampler.py",)),
    "schedule": Suite(("training/schedule.py",), ("training/test_schedule.py",)),
}


class Loader(SourceFileLoader):
    """Compile another source than the one in the file."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


@dataclass(frozen=True)
class Finder:
    """Finds one module, with a fault in it."""

    name: str
    path: str
    source: str

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = Loader(self.name, self.path, self.source)
        return importlib.util.spec_from_file_location(self.name, self.path, loader=loader)


def judges(suite: Suite) -> list[str]:
    """The test files of a suite."""
    left_out = {ROOT / "tests" / name for name in suite.without}
    files: list[Path] = []
    for name in suite.tests:
        place = ROOT / "tests" / name
        files += sorted(place.glob("test_*.py")) if place.is_dir() else [place]
    return [str(file) for file in files if file not in left_out]


class Quick:
    """Lets pytest run quick tests first, by the durations of an earlier run, and writes down those of this run."""

    def __init__(self, durations: Path) -> None:
        self.file = durations
        self.known: dict[str, float] = json.loads(durations.read_text()) if durations.exists() else {}
        self.found: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: self.known.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.found[report.nodeid] = self.found.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        if not self.known:
            self.file.write_text(json.dumps(self.found))


def run_tests(files: Sequence[str], environment: dict[str, str], durations: Path, fault: Finder | None) -> int:
    """pytest's exit code, in this process."""
    import hypothesis
    import numba
    import pytest

    os.environ.update(environment)
    numba.config.reload_config()
    if fault is not None:
        sys.meta_path.insert(0, fault)  # type: ignore[arg-type]
    hypothesis.settings.register_profile("mutation", derandomize=True, database=None)
    hypothesis.settings.load_profile("mutation")
    options = ["-x", "-q", "--no-header", "--tb=line", "--assert=plain", "-m", "not slow", "--disable-warnings"]
    return int(pytest.main([*options, f"--rootdir={ROOT}", *files], plugins=[Quick(durations)]))


def judge(suite: Suite, durations: Path, limit: int, fault: Finder | None = None) -> tuple[str, float, str]:
    """("killed" | "timeout" | "survived", seconds of processor time, the end of what pytest printed).

    The limit is of processor time, so that a busy machine lets no fault look like an endless loop.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        os.close(reader)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        code = 1
        with contextlib.suppress(BaseException):
            code = run_tests(judges(suite), suite.environment, durations, fault)
        sys.stdout.flush()
        os._exit(code)
    os.close(writer)
    os.set_blocking(reader, False)
    end, text, done, code, usage = time.monotonic() + 20 * limit, b"", 0, 0, resource.getrusage(resource.RUSAGE_SELF)
    while not done:
        done, status, usage = os.wait4(child, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(BlockingIOError):
            text = (text + os.read(reader, 1 << 16))[-4000:]
        if time.monotonic() > end:  # it waits for something
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    os.close(reader)
    verdict = "survived" if code == 0 else "killed" if code > 0 else "timeout"
    return verdict, usage.ru_utime + usage.ru_stime, text.decode(errors="replace")


def preload() -> None:
    """Import what the tests import but for our own modules, which are to be imported again with a fault in them."""
    for name in PRELOADED:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "qefpn"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # a child's collections do not go over torch again


Known = list[tuple[str, re.Pattern[str]]]


def equivalents() -> Known:
    """(module, pattern of a fault) of the list, in which a star stands for anything."""
    rows = (Path(__file__).parent / "equivalent.txt").read_text().splitlines()
    parts = [row.split(" | ") for row in rows if row and not row.startswith("#")]
    return [(module, re.compile(re.escape(what).replace(r"\*", ".*"))) for module, what, _ in parts]


def examine(
    suite: Suite, module: Path, chosen: list[Mutant], known: Known, durations: Path, limit: int
) -> tuple[int, int, int]:
    """(killed, survived, equivalent) of one module."""
    short = str(module.relative_to(SOURCES / "qefpn"))
    name = ".".join(module.relative_to(SOURCES).with_suffix("").parts)
    start = time.monotonic()
    killed = survived = equivalent = 0
    for mutant in chosen:
        if any(short == place and fault.fullmatch(mutant.what) for place, fault in known):
            equivalent += 1
            continue
        verdict, _, _ = judge(suite, durations, limit, Finder(name, str(module), mutant.source))
        killed += verdict != "survived"
        survived += verdict == "survived"
        if verdict != "killed":
            print(f"  {verdict}: {short}:{mutant.line} | {mutant.what}", flush=True)
    counts = f"{killed} of {killed + survived} noticed, {equivalent} equivalent"
    print(f"{short}: {counts}, {time.monotonic() - start:.0f} s", flush=True)
    return killed, survived, equivalent


def examine_suite(name: str, options: argparse.Namespace, folder: Path) -> tuple[int, int, int]:
    """(killed, survived, equivalent) of all modules of a suite."""
    suite, durations, known = SUITES[name], folder / f"{name}.json", equivalents()
    verdict, seconds, text = judge(suite, durations, 1200)
    if verdict != "survived":
        raise SystemExit(f"the tests of {name} fail without any fault:\n{text}")
    limit = int(20 + 4 * seconds)
    modules = [path for pattern in suite.modules for path in sorted((SOURCES / "qefpn").glob(pattern))]
    counts = [(0, 0, 0)]
    for module in modules:
        if module.name != "__init__.py" and re.search(options.only, str(module)):
            chosen = mutants(module.read_text(), options.limit, options.seed)
            counts.append(examine(suite, module, chosen, known, durations, limit))
    killed, survived, equivalent = map(sum, zip(*counts, strict=True))
    return killed, survived, equivalent


def main() -> None:
    """Examine the suites that were asked for and print what was noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"of {', '.join(SUITES)}; all unless told")
    parser.add_argument("--limit", type=int, default=40, help="faults a module, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--only", default="", help="modules whose path this pattern finds")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are: {', '.join(SUITES)}")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    preload()
    with tempfile.TemporaryDirectory() as folder:
        table = [(name, *examine_suite(name, options, Path(folder))) for name in options.suites or SUITES]
    print(f"\n{'suite':<10} noticed  survived  equivalent  share")
    for name, killed, survived, equivalent in table:
        share = 100 * killed / max(killed + survived, 1)
        print(f"{name:<10} {killed:7}  {survived:8}  {equivalent:10}  {share:4.1f} %")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # torch's libraries would complain of what was frozen
