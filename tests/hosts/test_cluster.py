"""A process finds its number in its run from flags or from a cluster, and a lone host of a TPU slice is recognized."""

import contextlib

import pytest
from hosts.metadata import metadata_server
from jax._src.clusters import cloud_tpu_cluster

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.hosts import cluster
from mixer_jax.hosts.cluster import DistributedArguments, find_distributed_arguments, is_one_of_several_tpu_hosts


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES", "SLURM_JOB_ID", "MEGASCALE_NUM_SLICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tpu_vm(monkeypatch):
    """Return a function that makes this machine a worker of a TPU slice of Compute Engine."""
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    with contextlib.ExitStack() as servers:
        yield lambda *worker: monkeypatch.setenv("GCE_METADATA_IP", servers.enter_context(metadata_server(*worker)))


def test_flags_are_used_as_given():
    assert (
        find_distributed_arguments(False, "a:1", 4, 3)
        == find_distributed_arguments(True, "a:1", 4, 3)
        == DistributedArguments("a:1", 4, 3)
    )
    assert find_distributed_arguments(False, "", 0, -1) is None and find_distributed_arguments(False, "", 1, 0) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((True, "a:1", 0, 0), "they are 0 and 0"),
        ((True, "a:1", 2, 2), "they are 2 and 2"),
        ((False, "a:1", 2, -1), "they are 2 and -1"),
        ((False, "a", 2, 0), "must be HOST:PORT"),
        ((False, "", 2, 0), "needs --coordinator"),
        ((True, "", 0, -1), "no cluster that JAX knows"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(arguments, message):
    with pytest.raises(UserError, match=message):
        find_distributed_arguments(*arguments)


@pytest.mark.parametrize(
    ("endpoints", "slices", "several"),
    [
        ("127.0.0.1,127.0.0.2", 1, True),
        ("a:0:127.0.0.1,b:1:127.0.0.2", 1, True),  # This is the older form.
        ("127.0.0.1", 1, False),
        ("127.0.0.1", 2, True),
    ],
)
def test_a_tpu_vm_knows_by_its_metadata_server_whether_it_is_one_host_of_several(tpu_vm, endpoints, slices, several):
    tpu_vm(0, endpoints, slices)
    assert is_one_of_several_tpu_hosts() == several


def test_a_tpu_vm_finds_its_place(tpu_vm):
    tpu_vm(1, "127.0.0.1,127.0.0.2")
    assert find_distributed_arguments(True, "", 0, -1) == DistributedArguments("127.0.0.1:8482", 2, 1)


@pytest.mark.parametrize("variable", ["TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"])
def test_a_pod_of_gke_knows_it_by_its_environment(monkeypatch, variable):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    for hosts in ("host-0", "host-0,host-1"):
        monkeypatch.setenv(variable, hosts)
        assert is_one_of_several_tpu_hosts() == ("," in hosts)
    monkeypatch.setenv(variable, "host-0")
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "2")
    assert is_one_of_several_tpu_hosts()


def test_a_metadata_server_is_asked_only_on_a_tpu_vm_and_not_waited_for(tpu_vm, monkeypatch):
    monkeypatch.setattr(cluster, "METADATA_SECONDS", 0.2)
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:1")
    assert not is_one_of_several_tpu_hosts()
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", False)
    monkeypatch.setattr(cluster.socket, "create_connection", lambda *_: pytest.fail("this is no TPU VM"))
    assert not is_one_of_several_tpu_hosts()


def test_a_description_that_cannot_be_read_is_one_message(tpu_vm):
    tpu_vm(0, "a:b,c:d")
    for ask in (is_one_of_several_tpu_hosts, lambda: find_distributed_arguments(True, "", 0, -1)):
        with pytest.raises(EnvironmentFault, match=r"cannot be read .*unsupported worker-network-endpoints"):
            ask()


def test_slurm_is_a_cluster_but_tasks_of_it_may_run_alone(monkeypatch):
    words = {"JOB_ID": "7", "STEP_NODELIST": "n[1-2]", "NTASKS": "2", "PROCID": "1", "LOCALID": "0", "STEP_NUM_NODES": "2"}
    for name, value in words.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert find_distributed_arguments(True, "", 0, -1) == DistributedArguments("n1:61447", 2, 1)
    assert not is_one_of_several_tpu_hosts()
