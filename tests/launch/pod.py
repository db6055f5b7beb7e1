"""A "pod" of two hosts on this machine: they run the startup script of a node, and a real sshd leads gcloud to them."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from conftest import XLA_FLAGS
from stand_ins.tpu_api import TpuApi

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
ADDRESSES = ("127.0.0.1", "127.0.0.2")


def why_not() -> str:
    """Return why there can be no pod here, or ""."""
    missing = [name for name in ("gcloud", "ssh-keygen", "unshare") if shutil.which(name) is None]
    missing += [] if SSHD else ["sshd"]
    return f"not installed here: {', '.join(missing)}" if missing else "" if os.geteuid() == 0 else "sshd needs root for port 22"


class Pod:
    """Two hosts. Each boot of them is on new disks, as after a slice was lost."""

    def __init__(self, folder: Path, api: TpuApi, metadata: tuple[str, str]):
        """Take the HOST:PORT of the metadata server of each host."""
        self._folder, self.api, self._boots = folder, api, 0
        self._hosts: list[subprocess.Popen] = []
        shared = {"JAX_FORCE_TPU_INIT": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{XLA_FLAGS}1"}
        # Where there is no chip, JAX does not ask the metadata server for the hosts. So they are in variables, as on GKE.
        shared |= {"TPU_WORKER_HOSTNAMES": ",".join(ADDRESSES), "MEGASCALE_NUM_SLICES": "1"}
        self._environments = [
            shared | {"GCE_METADATA_HOST": address, "GCE_METADATA_IP": address, "TPU_WORKER_ID": str(number)}
            for number, address in enumerate(metadata)
        ]
        self._sshd = self._start_sshd()

    def close(self) -> None:
        self.kill()
        self._sshd.terminate()
        self._sshd.wait()

    def boot(self) -> None:
        """Start the hosts of the node that was created last."""
        self._boots += 1
        (node,) = self.api.nodes.values()
        script = self._folder / f"startup-script-{self._boots}"
        text = node["metadata"]["startup-script"]
        script.write_text(text.replace("UPLOAD_SECONDS=60", "UPLOAD_SECONDS=5"))
        for number, environment in enumerate(self._environments):
            disk = self._folder / f"disk-{number}"
            shutil.rmtree(disk, ignore_errors=True)
            name = f"w-{number}-boot-{self._boots}"
            (self._folder / name).write_text(f"127.0.0.1 localhost {name}\n")
            setting = f"hostname {name}; mount --bind {self._folder}/{name} /etc/hosts; exec bash {script}"
            command = ["unshare", "--uts", "--mount", "sh", "-c", setting]
            with open(self._folder / f"console-{number}-{self._boots}", "wb") as console:
                self._hosts.append(
                    subprocess.Popen(
                        command, env=os.environ | environment | {"MIXER_JAX_FOLDER": str(disk)}, start_new_session=True,
                        stdout=console, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip

    def kill(self) -> None:
        """End the hosts as a power failure does."""
        for host in self._hosts:
            if host.poll() is None:
                os.killpg(host.pid, signal.SIGKILL)
            host.wait()
        self._hosts = []

    def consoles(self) -> str:
        return "\n".join(f"== {file.name}\n{file.read_text()}" for file in sorted(self._folder.glob("console-*")))

    def _start_sshd(self) -> subprocess.Popen:
        """Start an sshd for both hosts. What runs on a host has the folder that is its disk."""
        home, programs = Path(os.environ["HOME"]), self._folder / "bin"
        (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
        programs.mkdir()
        on_disk = 'exec $(echo "$@" | sed "s#/var/lib/mixer_jax#$MIXER_JAX_FOLDER#")'  # Both hosts share this machine's /var.
        (programs / "sudo").write_text(f"#!/bin/sh\n{on_disk}\n")
        (programs / "sudo").chmod(0o755)
        for key in (home / ".ssh/google_compute_engine", self._folder / "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", str(key)], check=True)
        public = (home / ".ssh/google_compute_engine.pub").read_text()
        (self._folder / "authorized_keys").write_text(public)
        self.api.ssh_key = f"root:{public.strip()}"
        Path("/run/sshd").mkdir(exist_ok=True)
        lines = [
            *(f"ListenAddress {address}:22" for address in ADDRESSES), f"HostKey {self._folder}/host_key", "StrictModes no",
            f"AuthorizedKeysFile {self._folder}/authorized_keys", "UsePAM no", f"PidFile {self._folder}/sshd.pid",
        ]  # fmt: skip
        for number, address in enumerate(ADDRESSES):
            variables = f'MIXER_JAX_FOLDER={self._folder}/disk-{number} "PATH={programs}:{os.environ["PATH"]}"'
            lines += [f"Match LocalAddress {address}", f"  SetEnv {variables}"]
        config = self._folder / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        with open(self._folder / "sshd.log", "wb") as log:
            process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log)
        time.sleep(1)
        assert process.poll() is None, (self._folder / "sshd.log").read_text()
        return process
