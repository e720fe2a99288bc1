"""The script of docs/clusters.md under SLURM, on two machines that are made here and share a disk.

    apt-get install slurm-wlm munge iproute2       # as root, on a machine where that may be done
    python benchmarks/slurm.py

Each machine has a network, a name and processes of its own, so that trainings speak over sockets. SLURM's daemons run
from a temporary folder, and end with this script. Shown is, with one task a machine:

* weights of a job beside those of `torchrun` with two processes, on one machine and on both;
* a job that is requeued in the middle: it saves, goes on by itself, and ends in the weights of an unbroken one;
* a job that comes to its time limit: it saves, and ends in the same weights when it is submitted again;
* a job of which one task is killed: how soon the other one ends, and what a job that is submitted after it ends in.

The status is 1 if any weights differ.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

MACHINES = {"first": "10.77.0.11", "second": "10.77.0.12"}
HOSTS = "127.0.0.1 localhost\n10.77.0.1 control\n" + "".join(f"{at} {name}\n" for name, at in MACHINES.items())
CONFIG = """ClusterName=two
SlurmctldHost=control(10.77.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/control.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/control.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName=first NodeAddr=10.77.0.11 CPUs=2 State=UNKNOWN
NodeName=second NodeAddr=10.77.0.12 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=first,second Default=YES MaxTime=INFINITE State=UP
"""


def run(*words: str, check: bool = True) -> str:
    """What a command prints."""
    return subprocess.run(words, check=check, capture_output=True, text=True, timeout=600).stdout


@contextmanager
def daemon(*words: str) -> Iterator[None]:
    """A process that runs meanwhile, with those that it starts."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(20)


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Two machines under SLURM."""
    with ExitStack() as stack:
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        (folder / "slurm.conf").write_text(CONFIG.format(folder=folder))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        (folder / "hosts").write_text(HOSTS)
        (folder / "key").write_bytes(secrets.token_bytes(1024))
        (folder / "key").chmod(0o600)
        (folder / "state").mkdir()
        run("ip", "link", "add", "pyrovae", "type", "bridge")
        stack.callback(run, "ip", "link", "del", "pyrovae")
        run("ip", "addr", "add", "10.77.0.1/24", "dev", "pyrovae")
        run("ip", "link", "set", "pyrovae", "up")
        files = [f"--{name}={folder}/{name}" for name in ("pid-file", "log-file", "seed-file")]
        stack.enter_context(
            daemon("munged", "--force", "--foreground", f"--key-file={folder}/key", f"--socket={folder}/munge", *files)
        )
        stack.enter_context(daemon("unshare", "--uts", "sh", "-c", "hostname control; exec slurmctld -D"))
        for name, address in MACHINES.items():
            (folder / f"spool-{name}").mkdir()
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
            run("ip", "link", "add", f"at-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", f"at-{name}", "master", "pyrovae", "up")
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                run("ip", "-n", name, "link", "set", device, "up")
            begin = f"hostname {name}; mount --bind {folder}/hosts /etc/hosts; exec slurmd -D"
            own = ("unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", begin)
            stack.enter_context(daemon("nsenter", f"--net=/run/netns/{name}", *own))
        wait(lambda: "2 idle" in " ".join(run("sinfo", "-h", "-o", "%D %t", check=False).split()), "two machines")
        yield


def wait(ready: Callable[[], bool], what: str, seconds: float = 900) -> float:
    """Wait until something is so; the seconds that it took."""
    begun = time.monotonic()
    while not ready():
        if time.monotonic() - begun > seconds:
            raise SystemExit(f"{what}: not seen within {seconds:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - begun


class Job:
    """A job that runs the script of the page, with a run folder of its own."""

    def __init__(self, script: str, folder: Path, name: str, *options: str) -> None:
        self.run, self.log = folder / name, folder / f"{name}.log"
        file = folder / f"{name}.sh"
        file.write_text(script.replace("/shared/digits", str(self.run)))
        given = ("--parsable", "--ntasks-per-node=1", "--open-mode=append", f"--output={self.log}", *options)
        self.number = run("sbatch", *given, str(file)).strip()

    def state(self) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED, ..."""
        found = re.search(r"JobState=(\w+)", run("scontrol", "show", "job", self.number))
        return "" if found is None else found[1]

    def until_saved(self) -> None:
        """Wait for a checkpoint in the middle of the training."""
        wait((self.run / "metrics.csv").exists, "a checkpoint")

    def until_ended(self) -> float:
        """Wait for the end, and say how long that took in seconds."""
        return wait(lambda: self.state() not in ("PENDING", "RUNNING", "COMPLETING"), "the end of a job")

    def line(self, start: str) -> str:
        """The last line of the log that begins so."""
        lines = re.split(r"[\r\n]", self.log.read_text())
        return next((line for line in reversed(lines) if line.startswith(start)), "")


differing: list[Path] = []


def compared(folder: Path, weights: bytes) -> str:
    """Whether the weights in a run folder are these, in a word."""
    if (folder / "model.safetensors").read_bytes() == weights:
        return "equal"
    differing.append(folder)
    return "OTHERS"


def main() -> None:
    """Run the jobs and print what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    page = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text()
    script = next(part for part in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "#SBATCH" in part)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as name, cluster(folder := Path(name)):
        print(run("srun", "--version").strip(), flush=True)
        whole = Job(script, folder, "whole")
        whole.until_ended()
        weights = (whole.run / "model.safetensors").read_bytes()
        print(f"a job: {whole.state()}; {whole.line('all')}", flush=True)
        words = ("--standalone", "--nproc-per-node=2", "-m", "pyrovae", "train", "gaussian", "--data", "digits")
        run("torchrun", *words, "--out", str(folder / "one"))
        print(f"weights of torchrun with two processes: {compared(folder / 'one', weights)}", flush=True)
        both = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=first:29400")
        start = ("srun", "--nodes=2", "--ntasks-per-node=1", "torchrun", *both, "--rdzv-id=digits")
        run(*start, *words[2:], "--out", str(folder / "both"))
        print(f"weights of torchrun started on both machines: {compared(folder / 'both', weights)}", flush=True)

        broken = Job(script, folder, "requeued")
        broken.until_saved()
        run("scontrol", "requeue", broken.number)
        wait(lambda: broken.state() == "PENDING", "the job in the queue")
        print(f"requeued: {broken.line('pyrovae:')}", flush=True)
        run("scontrol", "update", f"JobId={broken.number}", "StartTime=now")
        broken.until_ended()
        print(f"weights after it went on: {compared(broken.run, weights)}", flush=True)

        longer = script.replace("--data digits", "--data digits --epochs 600")
        ended = Job(longer, folder, "ended", "--time=2")  # minutes; of which the last one is for saving
        ended.until_ended()
        print(f"its time is over: {ended.state()}; {ended.line('pyrovae:')}", flush=True)
        ended = Job(longer, folder, "ended")
        ended.until_ended()
        unbroken = Job(longer, folder, "unbroken")
        unbroken.until_ended()
        longest = (unbroken.run / "model.safetensors").read_bytes()
        print(f"weights of the job submitted after it: {compared(ended.run, longest)}", flush=True)

        killed = Job(script, folder, "killed")
        killed.until_saved()
        tasks = run("pgrep", "-f", f"^python -m pyrovae train.*{killed.run}").split()
        os.kill(int(tasks[-1]), signal.SIGKILL)
        print(f"a task killed: {killed.until_ended():.1f} s until the job was {killed.state()}", flush=True)
        print(f"its line: {killed.line('pyrovae:')}", flush=True)
        again = Job(script, folder, "killed")
        again.until_ended()
        print(f"weights of the job submitted after it: {compared(again.run, weights)}", flush=True)
    if differing:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
