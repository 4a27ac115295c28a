"""What `qefpn data verify`, `benchmark`, `evaluate` and `predict` take over many small pictures, and after Ctrl-C.

    python benchmarks/long_work.py pictures=20000 [commands=verify,benchmark]

Draws pictures of 16 to 32 px with masks and maps, of which two are damaged, and runs each command three times in
processes of its own: stopped by Ctrl-C at about half, run again, and run a third time, when nothing is left to do.
Memory is what all processes of the command hold together of their own (anonymous and shared pages; pages of files,
which the system takes back when it likes, are left out), from when a quarter of the work is done until all is;
``after_mib`` is how far the tables and figures that come after that go beyond it. ``evaluate`` makes a map once, and
scores all of them each time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

AT_ONCE = 100
"""Files between two lines of progress, which may be done and not yet told."""


@dataclass
class Run:
    """One run of a command.

    Attributes:
        name, code: what ran, and its exit status.
        seconds: wall time.
        growth_mib: how far the largest size exceeds that at a quarter of the work; peak_mib: the largest.
        after_mib: the largest size after the work, less peak_mib; of the main process alone where others have ended.
        files: most open files of the main process, and how many more than at a quarter.
        done: how many files or maps the run worked on.
    """

    name: str
    code: int
    seconds: float
    growth_mib: float
    peak_mib: float
    after_mib: float
    files: tuple[int, int]
    done: int


def draw(root: Path, count: int) -> None:
    """``set/images``, ``set/masks`` and ``maps/M``; one picture and one map are no pictures."""
    rng = np.random.default_rng(0)
    for folder in ("set/images", "set/masks", "maps/M"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        height, width = (int(side) for side in rng.integers(16, 33, 2))
        mask = np.zeros((height, width), np.uint8)
        mask[4 : 4 + number % 8 + 3, 3:12] = 255
        picture = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        soft = np.clip(mask.astype(int) + rng.integers(-90, 90, mask.shape), 0, 255).astype(np.uint8)
        for folder, array in (("set/images", picture), ("set/masks", mask), ("maps/M", soft)):
            suffix = "jpg" if folder == "set/images" else "png"
            Image.fromarray(array).save(root / folder / f"p{number:06d}.{suffix}")
    (root / "set/images/p000003.jpg").write_bytes(b"no picture")
    (root / "maps/M/p000005.png").write_bytes(b"no picture")


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        try:
            tasks = Path(f"/proc/{one}/task").iterdir()
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _resident(pid: int) -> float:
    total = 0.0
    for one in _tree(pid):
        try:
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        total += sum(int(size) for size in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.MULTILINE)) / 2**10
    return total


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


WATCHED = """
import sys
from rich.progress import Progress
log = open(sys.argv[1], "a", buffering=1)
update = Progress.update
def tell(self, task_id, **options):
    update(self, task_id, **options)
    task = self._tasks[task_id]
    log.write(f"{task.description}|{int(task.completed)}|{int(task.total or 0)}\\n")
Progress.update = tell
from qefpn.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""
"""The command line, which writes down how far its bars are."""


@dataclass(frozen=True)
class Command:
    """One command, and how to see how far it is.

    Attributes:
        name, words: what runs.
        phase: what its bar says, as a pattern.
        made: the folder whose files are what it makes; None where the bar counts only what is worked on.
    """

    name: str
    words: list[str]
    phase: str
    made: Path | None = None


def _new_files(folder: Path, since: float) -> int:
    return sum(file.stat().st_mtime >= since for file in folder.rglob("*.png")) if folder.is_dir() else 0


def watch(command: Command, when: str, folder: Path, *, stop_at: float | None = None) -> Run:
    """Run a command to its end, or interrupt it where a share of its work is done."""
    log, script = folder / "progress.txt", folder / "watched.py"
    log.write_text("")
    script.write_text(WATCHED)
    environment = {**os.environ, "QEFPN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    begin, clock = time.time(), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(script), str(log), *command.words],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )  # fmt: skip
    bar = re.compile(rf"^{command.phase}\|(\d+)\|(\d+)$", re.MULTILINE)
    warm: tuple[float, int] | None = None
    peak, after, files, share = 0.0, 0.0, 0, 0.0
    while process.poll() is None:
        lines = bar.findall(log.read_text())
        share = int(lines[-1][0]) / max(1, int(lines[-1][1])) if lines else 0.0
        if share >= 0.25:
            now = (_resident(process.pid), _open_files(process.pid))
            if share < 1.0:
                warm = warm or now
                peak, files = max(peak, now[0]), max(files, now[1])
            else:
                after = max(after, now[0])
        if stop_at is not None and share >= stop_at:
            os.killpg(process.pid, signal.SIGINT)
            stop_at = None
        time.sleep(0.05)
    seconds = time.monotonic() - clock
    lines = bar.findall(log.read_text())
    done = int(lines[-1][0]) if lines else 0
    if command.made is not None:
        done = _new_files(command.made, begin)
    first = warm or (peak, files)
    name = f"{command.name}, {when}"
    return Run(
        name,
        process.returncode,
        seconds,
        peak - first[0],
        peak,
        max(0.0, after - peak) if warm else 0.0,  # of a work that nobody saw nothing can be said
        (files, files - first[1]),
        done,
    )


def checkpoint(folder: Path) -> Path:
    """A small network after two steps."""
    run = folder / "run"
    words = ["experiment=demo", "data.synthetic.train=8", "data.synthetic.test=2", "data.synthetic.size=32"]
    words += ["data.image_size=32", "data.scales=null", "data.batch_size=4", "data.val_fraction=0"]
    words += ["trainer.max_steps=2", "evaluate=false"]
    words += [f"data.root={folder / 'drawn'}", f"hydra.run.dir={run}"]
    subprocess.run([sys.executable, "-m", "qefpn.cli", "train", *words], check=True, stdout=subprocess.DEVNULL)
    return run / "checkpoints" / "last.ckpt"


def commands(folder: Path, names: Sequence[str]) -> list[Command]:
    """Those of :data:`COMMANDS` that are named."""
    root, out, scored = f"data.root={folder / 'set'}", folder / "out", folder / "scored"
    trained = f"checkpoint={checkpoint(folder)}" if {"evaluate", "predict"} & {*names} else ""
    there = [
        Command("verify", ["data", "verify", root], r"checking.*"),
        Command("benchmark", ["benchmark", f"maps={folder / 'maps'}", root, f"output={out}"], "scoring maps"),
        Command(
            "evaluate", ["evaluate", trained, root, "data.on_error=skip", f"output={scored}", "floors=false"],
            ".* · model", scored / "maps",
        ),
        Command(
            "predict", ["predict", trained, f"input={folder / 'set/images'}", f"output={folder / 'made'}"],
            "predict", folder / "made",
        ),
    ]  # fmt: skip
    return [command for command in there if command.name in names]


COMMANDS = ("verify", "benchmark", "evaluate", "predict")


def measure(folder: Path, count: int, names: Sequence[str] = COMMANDS) -> Iterator[Run]:
    """Each command three times."""
    draw(folder, count)
    for command in commands(folder, names):
        yield watch(command, "stopped", folder, stop_at=0.5)
        yield watch(command, "again", folder)
        yield watch(command, "a third time", folder)


def main(words: list[str]) -> int:
    """Print a line a run, as JSON."""
    options = {"pictures": "20000", "commands": ",".join(COMMANDS)} | dict(word.split("=", 1) for word in words)
    with tempfile.TemporaryDirectory() as folder:
        for run in measure(Path(folder), int(options["pictures"]), options["commands"].split(",")):
            print(json.dumps(asdict(run)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
