"""What `qefpn data verify` and `qefpn benchmark` take over many small pictures: memory, open files, and after Ctrl-C.

    python benchmarks/long_work.py pictures=20000

Draws pictures of 16 to 32 px with masks and maps, of which two are damaged, and runs each command three times in
processes of its own: stopped by Ctrl-C at about half, run again, and run a third time, when nothing is left to do.
Memory is what all processes of the command hold together of their own (anonymous and shared pages; pages of files,
which the system takes back when it likes, are left out), from when a quarter of the files is checked or of the maps is
scored until all are; ``after_mib`` is how far the tables and figures that come after that go beyond it.
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
import re, sys
from qefpn.commands import prepare
log = open(sys.argv[1], "a", buffering=1)
told = prepare.Reporter.__call__
def tell(self, what, done, total):
    log.write(f"{what}|{done}|{total}\\n")
    told(self, what, done, total)
prepare.Reporter.__call__ = tell
from qefpn.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""
"""The command line, which writes down how far it is."""


def watch(name: str, words: list[str], phase: str, folder: Path, *, stop_at: float | None = None) -> Run:
    """Run a command to its end, or interrupt it where a share of ``phase`` is done."""
    log, script = folder / "progress.txt", folder / "watched.py"
    log.write_text("")
    script.write_text(WATCHED)
    environment = {**os.environ, "QEFPN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(script), str(log), *words],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    warm: tuple[float, int] | None = None
    peak, after, files, share, done = 0.0, 0.0, 0, 0.0, 0
    while process.poll() is None:
        lines = re.findall(rf"^{re.escape(phase)}.*\|(\d+)\|(\d+)$", log.read_text(), re.MULTILINE)
        if lines:
            done = int(lines[-1][0])
            share = done / max(1, int(lines[-1][1]))
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
        time.sleep(0.1)
    lines = re.findall(rf"^{re.escape(phase)}.*\|(\d+)\|(\d+)$", log.read_text(), re.MULTILINE)
    done = int(lines[-1][0]) if lines else 0
    first = warm or (peak, files)
    seconds = time.monotonic() - begin
    return Run(
        name, process.returncode, seconds, peak - first[0], peak, after - peak, (files, files - first[1]), done
    )


def measure(folder: Path, count: int) -> list[Run]:
    """Both commands, three times each."""
    draw(folder, count)
    verify = ["data", "verify", f"data.root={folder / 'set'}"]
    score = ["benchmark", f"maps={folder / 'maps'}", f"data.root={folder / 'set'}", f"output={folder / 'out'}"]
    runs = []
    for name, words, phase in (("verify", verify, "checking"), ("benchmark", score, "scoring maps")):
        runs.append(watch(f"{name}, stopped", words, phase, folder, stop_at=0.5))
        runs.append(watch(f"{name}, again", words, phase, folder))
        runs.append(watch(f"{name}, a third time", words, phase, folder))
    return runs


def main(words: list[str]) -> int:
    """Print a line a run, as JSON."""
    options = {"pictures": "20000"} | dict(word.split("=", 1) for word in words)
    with tempfile.TemporaryDirectory() as folder:
        for run in measure(Path(folder), int(options["pictures"])):
            print(json.dumps(asdict(run)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
