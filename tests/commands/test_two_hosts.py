"""The command of docs/sweeps.md for several machines, on two hosts: network namespaces, and a link between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.commands.runs import log, words

from qefpn.cli import main

pytestmark = pytest.mark.slow

SIZES = ["synthetic.train=12", "synthetic.test=3", "synthetic.size=64"]
ADDRESSES = ("10.231.77.1", "10.231.77.2")
STEPS = 40
OFTEN = """
import sys

if "qefpn.cli" in sys.orig_argv and "torch.distributed.run" not in sys.orig_argv:
    from qefpn.training.last_checkpoint import LastCheckpoint

    LastCheckpoint.__init__.__defaults__ = (0.2,)
"""
"""last.ckpt more often than every minute, told from within each process."""


def ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces, each with one end of a link of the same name."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two hosts need root on Linux, and ip (iproute2)")
    first, second = names = (f"qefpn{os.getpid()}a", f"qefpn{os.getpid()}b")
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip(
                "link",
                "add",
                f"{first}0",
                "netns",
                first,
                "type",
                "veth",
                "peer",
                "name",
                f"{second}0",
                "netns",
                second,
            )
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", f"{name}0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", f"{name}0", "up")
        yield first, second
    finally:
        for name in names:  # the link goes with them
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def start(hosts: tuple[str, str], spy: Path, argv: list[str]) -> list[subprocess.Popen[str]]:
    run = ["torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", f"--master_addr={ADDRESSES[0]}"]
    run += ["--master_port=29500", "-m", "qefpn.cli", *argv]
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, "-m", run[0], f"--node_rank={rank}", *run[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "GLOO_SOCKET_IFNAME": f"{host}0", "PYTHONPATH": str(spy)},
        )
        for rank, host in enumerate(hosts)
    ]


def test_a_cut_link_ends_both_sides_and_the_run_goes_on(
    hosts: tuple[str, str], tmp_path: Path, data_root: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(OFTEN)
    assert main(["data", "synthesize", f"data.root={tmp_path}/data", *SIZES]) == 0
    run = tmp_path / "run"
    own = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1", "data.val_fraction=0.3", "evaluate=false"]
    own += [f"trainer.max_steps={STEPS}", "warmup.steps=20", "trainer.rank_timeout=15"]
    argv = [word for word in words(run, tmp_path / "data", *own) if word != "trainer=cpu"]
    sides = start(hosts, tmp_path, argv)
    last = run / "checkpoints" / "last.ckpt"
    try:
        until = time.monotonic() + 240
        while not last.exists() and time.monotonic() < until and all(side.poll() is None for side in sides):
            time.sleep(0.1)
        assert last.exists(), [side.communicate(timeout=60)[0] for side in sides if side.poll() is not None]
        ip("-n", hosts[0], "link", "set", f"{hosts[0]}0", "down")
        said = [side.communicate(timeout=120)[0] for side in sides]
    finally:
        for side in sides:
            side.kill()
    for side, host, text in zip(sides, hosts, said, strict=True):
        assert side.returncode != 0
        (line,) = [line for line in text.splitlines() if line.startswith("qefpn train: ")]
        assert "trainer.rank_timeout=15" in line
        assert f"GLOO_SOCKET_IFNAME={host}0" in line
        assert f"resume={last}" in line
    assert len(log(run)) < STEPS
    ip("-n", hosts[0], "link", "set", f"{hosts[0]}0", "up")
    sides = start(hosts, tmp_path, [*argv, f"resume={last}"])
    try:
        said = [side.communicate(timeout=300)[0] for side in sides]
    finally:
        for side in sides:
            side.kill()
    assert [side.returncode for side in sides] == [0, 0], "\n".join(said)
    assert [int(row["step"]) for row in log(run)] == list(range(STEPS))
