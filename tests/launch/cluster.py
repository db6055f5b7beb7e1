"""A SLURM of two nodes on this machine: its own munged, slurmctld and two slurmd, each with a host name of its own."""

import os
import platform
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path

from programs import free_port, wait_until

SBIN = f"{os.environ['PATH']}:/usr/sbin"
PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue", "unshare")
NODES = {"n0": "127.0.0.1", "n1": "127.0.0.2"}
CONFIG = """
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Return why there can be no SLURM here, or ""."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SBIN) is None]
    if missing:
        return f"not installed here: {', '.join(missing)} (Debian's packages slurmctld, slurmd, slurm-client and munge)"
    return "" if os.geteuid() == 0 else "nodes with host names of their own need root"


class Cluster:
    """A controller and two nodes, whose files are in a folder.

    Attributes:
      environment: the variables that lead the commands of SLURM here.
    """

    def __init__(self, folder: Path, jobs: Path):
        """Take the folder of the cluster's files, and that in which jobs write their logs."""
        self._folder, self._jobs = folder, jobs
        self._processes: list[subprocess.Popen] = []
        self.environment = {"SLURM_CONF": f"{folder}/slurm.conf"}
        ports = {name: free_port() for name in NODES}
        nodes = [
            f"NodeName={name} NodeHostname={name} NodeAddr={address} Port={ports[name]} CPUs=1 RealMemory=1000 State=UNKNOWN"
            for name, address in NODES.items()
        ]
        text = CONFIG.format(
            host=platform.node(), port=free_port(), user=pwd.getpwuid(os.geteuid()).pw_name, folder=folder,
            nodes="\n".join(nodes), names=",".join(NODES),
        )  # fmt: skip
        (folder / "slurm.conf").write_text(text)
        (folder / "state").mkdir()
        (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in NODES.items()) + "127.0.0.1 localhost\n")
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)

    def __enter__(self) -> "Cluster":
        try:
            self._start_all()
        except BaseException:
            self._end_all()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run("scancel", "--me")
            wait_until(lambda: not self.jobs(), self.logs)
        finally:
            self._end_all()

    def run(self, *words: str) -> str:
        """Return what a command of SLURM prints. Fail if it does."""
        ended = subprocess.run(words, env=os.environ | self.environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr + self.logs()
        return ended.stdout.strip()

    def jobs(self) -> list[str]:
        """Return the numbers of the jobs that wait, run or end. In an array, each run has one: JOB_RUN."""
        return self.run("squeue", "--noheader", "--array", "--format=%i").split()

    def logs(self) -> str:
        """Return the logs of the cluster and of its jobs."""
        files = [*sorted(self._folder.glob("*.log")), *sorted(self._jobs.glob("*.log"))]
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')}" for file in files)

    def _start_all(self) -> None:
        folder = self._folder
        files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={folder}/munge.sock", *files)
        wait_until((folder / "munge.sock").exists, self.logs)
        self._start("slurmctld", "-D")
        for name in NODES:
            (folder / f"spool-{name}").mkdir()
            setting = f"hostname {name}; mount --bind {folder}/hosts /etc/hosts; exec slurmd -D -N {name}"
            self._start("unshare", "--uts", "--mount", "sh", "-c", setting)
        wait_until(self._is_ready, self.logs)

    def _is_ready(self) -> bool:
        words = ["sinfo", "--noheader", "--format=%T %D"]
        ended = subprocess.run(words, env=os.environ | self.environment, capture_output=True, text=True)
        return ended.stdout.split() == ["idle", str(len(NODES))]

    def _end_all(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait()

    def _start(self, *words: str) -> None:
        environment = os.environ | self.environment | {"PATH": SBIN}
        with open(self._folder / f"{words[0]}-{len(self._processes)}.log", "wb") as log:
            self._processes.append(subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT))
