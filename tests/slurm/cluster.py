"""A Slurm cluster of this one machine, as Debian packages it (slurm-wlm, munge): started and stopped as root.

    python -m tests.slurm.cluster                    a shell in which sbatch, squeue and the like reach it

Two nodes, so that a job of two machines has them, each of two CPUs, both of them this machine. Partitions: ``low``,
whose jobs are put back into the queue when ``high`` wants their node, and ``high``. Nothing is written outside its
directory, and nothing runs on when it has stopped, or when the process that started it was killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
GUARD = "--guard"
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000
ReturnToService=2
KillWait=20
MpiDefault=none
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no cluster can be had here; None where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a Slurm of its own needs root on Linux"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"no {', '.join(absent)}: apt-get install slurm-wlm munge" if absent else None


@dataclass(frozen=True)
class Cluster:
    """A running one.

    Attributes:
        directory: of its configuration, state and logs.
        environment: this process's, with what leads Slurm's commands to it.
    """

    directory: Path
    environment: dict[str, str]

    def run(self, *words: str) -> str:
        """Standard output of one of Slurm's commands."""
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def states(self) -> dict[str, str]:
        """State of each job in the queue by its name: PENDING, RUNNING, COMPLETING, ..."""
        rows = (line.split("|") for line in self.run("squeue", "--noheader", "--format=%j|%T").splitlines())
        return {name: state for name, state in rows}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _munge(directory: Path) -> list[str]:
    """The words that start munged, with a key of its own."""
    user = "munge"
    key = directory / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    own = directory / "munge"
    own.mkdir(mode=0o755)
    for path in (key, own):
        shutil.chown(path, user, user)
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--pdeathsig", "TERM"]
    words += ["munged", "--foreground", "--force"]
    words += [f"--key-file={key}", f"--socket={own}/socket", f"--pid-file={own}/pid"]
    return [*words, f"--log-file={own}/log", f"--seed-file={own}/seed", "--num-threads=2"]


@contextlib.contextmanager
def started(directory: Path, nodes: int = 2) -> Iterator[Cluster]:
    """A cluster while the context is open.

    Args:
        directory: an empty one of its own, below directories that any user may enter.
        nodes: how many, all of them this machine.

    Raises:
        RuntimeError: it did not come up; the logs' ends are in the message.
    """
    host = socket.gethostname().split(".")[0]
    controller, *ports = _free_ports(1 + nodes)
    names = [f"node{number}" for number in range(nodes)]
    lines = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000"
        for name, port in zip(names, ports, strict=True)
    ]
    text = CONFIG.format(host=host, controller=controller, directory=directory, nodes="\n".join(lines))
    config = directory / "slurm.conf"
    config.write_text(text)
    (directory / "state").mkdir()
    environment = {**os.environ, "SLURM_CONF": str(config)}
    for key in [key for key in environment if key.startswith(("SLURM_", "SBATCH_")) and key != "SLURM_CONF"]:
        del environment[key]
    cluster = Cluster(directory, environment)
    daemons: list[subprocess.Popen[bytes]] = []

    # Told by the end of its input that this process is gone, however that came.
    guard_words = [sys.executable, "-m", "tests.slurm.cluster", GUARD, str(directory)]
    here = Path(__file__).parents[2]
    guard = subprocess.Popen(guard_words, stdin=subprocess.PIPE, cwd=here, start_new_session=True)
    assert guard.stdin is not None

    def start(*words: str) -> None:
        with (directory / "daemons.log").open("ab") as log:
            daemons.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True))

    try:
        start(*_munge(directory))
        _wait(lambda: (directory / "munge" / "socket").exists(), cluster)
        start("slurmctld", "-D", "-f", str(config))
        for name in names:
            start("slurmd", "-D", "-N", name, "-f", str(config))
        _wait(lambda: _idle(cluster) == nodes, cluster)
        yield cluster
    finally:
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            cluster.run("scancel", "--full", "--signal=KILL", "--user=root")
            cluster.run("scancel", "--user=root")
            _until(lambda: not cluster.states(), 15)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        guard.stdin.close()
        guard.wait()


def _idle(cluster: Cluster) -> int:
    try:
        return cluster.run("sinfo", "--noheader", "--Node", "--partition=low", "--format=%T").split().count("idle")
    except RuntimeError:
        return 0


def _until(there: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def _wait(there: Callable[[], bool], cluster: Cluster, seconds: float = 30) -> None:
    if not _until(there, seconds):
        logs = sorted(cluster.directory.glob("**/*log"))
        ends = [f"{log.name}:\n{log.read_text(errors='replace')[-1500:]}" for log in logs]
        raise RuntimeError("Slurm did not come up\n" + "\n".join(ends))


def processes(directory: Path) -> list[int]:
    """Those of a cluster and of its jobs, in whose environment its configuration is."""
    marker = f"SLURM_CONF={directory}/slurm.conf".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def guard(directory: Path) -> None:
    """Kill what is left of a cluster when its process closes standard input, or is gone: daemons, steps and jobs."""
    sys.stdin.buffer.read()
    while there := [number for number in processes(directory) if number != os.getpid()]:
        for number in there:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.2)


def main() -> int:
    """A shell beside a cluster."""
    if sys.argv[1:2] == [GUARD]:
        guard(Path(sys.argv[2]))
        return 0
    reason = missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        Path(name).chmod(0o755)
        with started(Path(name)) as cluster:
            words = sys.argv[1:] or [os.environ.get("SHELL", "bash")]
            return subprocess.run(words, env=cluster.environment).returncode


if __name__ == "__main__":
    sys.exit(main())
