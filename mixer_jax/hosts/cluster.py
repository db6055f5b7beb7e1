"""Finds out how many processes a run has, and which of them this one is: from flags, or from the cluster as JAX reads it."""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import NamedTuple

from jax._src import clusters  # It is private: no public function returns what `jax.distributed.initialize` would find.
from jax._src.clusters import cloud_tpu_cluster
from jax._src.clusters.cloud_tpu_cluster import GceTpuCluster

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.hosts.rendezvous import split_address

METADATA_SECONDS = 3  # How long to wait for a connection to a metadata server. JAX would try for minutes.


class DistributedArguments(NamedTuple):
    """The arguments of jax.distributed.initialize for this process."""

    coordinator: str  # HOST:PORT of process 0.
    num_processes: int
    process_id: int


def find_distributed_arguments(
    distributed: bool, coordinator: str, num_processes: int, process_id: int
) -> DistributedArguments | None:
    """Return the arguments for this process, or None for a run of one process.

    Args:
        distributed: Whether to ask the cluster, if there is no `coordinator`.
        coordinator: HOST:PORT of process 0, or "".
        num_processes: The number of processes, which goes with `coordinator`.
        process_id: The number of this process, which goes with `coordinator`.

    Raises UserError for impossible values, and for `distributed` on a machine that belongs to no cluster. Raises EnvironmentFault
    if the cluster's description of its hosts cannot be read.
    """
    if coordinator:
        split_address(coordinator)
        if num_processes < 1 or not 0 <= process_id < num_processes:
            raise UserError(
                f"--coordinator={coordinator} needs --num_processes of at least 1 and --process_id below it; "
                f"they are {num_processes} and {process_id}."
            )
        return DistributedArguments(coordinator, num_processes, process_id)
    if num_processes > 1 and not distributed:
        raise UserError(
            f"--num_processes={num_processes} (or JAX_NUM_PROCESSES) needs --coordinator=HOST:PORT of process 0: without it "
            "each process would train alone. --distributed asks the cluster for all three."
        )
    return _ask_cluster() if distributed else None


def is_one_of_several_tpu_hosts() -> bool:
    """Return whether this machine is one of several hosts of a TPU slice, or belongs to one of several slices.

    GKE says so in environment variables. Compute Engine says so on its metadata server, which is asked only on a TPU VM.

    Raises EnvironmentFault if the cluster's description of its hosts cannot be read.
    """
    names = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES", "")
    if "," in names or os.environ.get("MEGASCALE_NUM_SLICES", "1") not in ("", "1"):
        return True
    with _report_unreadable_description():
        return _has_metadata_server() and GceTpuCluster.is_env_present() and GceTpuCluster.get_process_count() > 1


def _ask_cluster() -> DistributedArguments:
    """Return the arguments that JAX reads from the cluster of this machine. Raises UserError if the machine belongs to none."""
    with _report_unreadable_description():
        kinds = [kind for kind in clusters.ClusterEnv._cluster_types if not kind.opt_in_only_method]
        if not _has_metadata_server():
            kinds.remove(GceTpuCluster)
        cluster = next((kind for kind in kinds if kind.is_env_present()), None)
        if cluster is None:
            raise UserError(
                "--distributed: this machine belongs to no cluster that JAX knows (Cloud TPU, SLURM, Open MPI, Kubernetes). "
                "Leave it out for a run on this machine alone, or give --coordinator=HOST:PORT --num_processes=N --process_id=I."
            )
        port = os.environ.get("JAX_COORDINATOR_PORT")
        address = cluster.get_coordinator_address(timeout_secs=60, override_coordinator_port=port)
        return DistributedArguments(address, cluster.get_process_count(), cluster.get_process_id())


def _has_metadata_server() -> bool:
    """Return whether this is a TPU VM that has a metadata server of Compute Engine. A container on GKE may have none."""
    if not cloud_tpu_cluster.running_in_cloud_tpu_vm or "TPU_SKIP_MDS_QUERY" in os.environ:
        return False
    host, _, port = os.environ.get("GCE_METADATA_IP", "metadata.google.internal").partition(":")
    try:
        socket.create_connection((host, int(port or 80)), timeout=METADATA_SECONDS).close()
        return True
    except OSError:
        return False


@contextlib.contextmanager
def _report_unreadable_description() -> Iterator[None]:
    """Raise EnvironmentFault if JAX cannot read the cluster's description of its hosts in this context."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # JAX raises many types for a description that it cannot read.
        raise EnvironmentFault(
            f"The cluster's description of its hosts cannot be read ({type(error).__name__}: {error}). --coordinator=HOST:PORT "
            "--num_processes=N --process_id=I, on every host, does without it."
        ) from error
