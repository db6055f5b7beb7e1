"""The libraries that a run in a bucket uses take the stand-in for Cloud Storage. gcsfs is an extra: without it, they skip."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def gcsfs(cloud):
    """Return the library, which reads the environment when it is first imported."""
    return pytest.importorskip("gcsfs", reason="gcsfs is missing: pip install -r requirements-gcs.txt")


def test_array_record_reads_a_shard(cloud, tmp_path):
    writer = ArrayRecordWriter(str(tmp_path / "shard"), "group_size:1")
    for i in range(20):
        writer.write(b"%d" % i)
    writer.close()
    cloud.objects["bucket", "shard"] = (tmp_path / "shard").read_bytes()
    reader = ArrayRecordReader("gs://bucket/shard")
    assert reader.num_records() == 20 and reader.read([3, 17]) == [b"3", b"17"]
    reader.close()


def test_gcsfs_reads_writes_lists_moves_and_deletes(cloud, gcsfs):
    files = gcsfs.GCSFileSystem()
    files.pipe("bucket/run/a", b"0123")
    with files.open("bucket/run/b/large", "wb", block_size=1 << 18) as file:
        file.write(DATA)
    assert dict(cloud.objects) == {("bucket", "run/a"): b"0123", ("bucket", "run/b/large"): DATA}
    assert files.cat_file("bucket/run/a", start=1, end=3) == b"12" and files.cat("bucket/run/b/large") == DATA
    assert sorted(files.ls("bucket/run")) == ["bucket/run/a", "bucket/run/b"]
    files.mv("bucket/run/a", "bucket/run/c")
    files.rm("bucket/run/b", recursive=True)
    assert cloud.objects.names() == ["run/c"]
    assert not files.exists("other/a")


def test_google_cloud_storage_uploads_in_parts_verifies_and_keeps_to_preconditions(cloud, gcsfs):
    storage = pytest.importorskip("google.cloud.storage")
    bucket = storage.Client().bucket("bucket")
    with bucket.blob("large", chunk_size=1 << 18).open("wb") as file:
        file.write(DATA)
    assert bucket.blob("large").download_as_bytes(start=1, end=3) == DATA[1:4]
    with pytest.raises(Exception, match="412 POST"):
        bucket.blob("large").upload_from_string(b"", if_generation_match=0)
    cloud.objects.flip_bit("bucket", "large", 7)
    with pytest.raises(Exception, match="Checksum mismatch"):
        bucket.blob("large").download_as_bytes()


def test_orbax_saves_keeps_two_and_restores(cloud, gcsfs):
    state = {"weights": jnp.arange(1000.0).reshape(10, 100), "bias": jnp.ones((7,), jnp.bfloat16)}
    options = ocp.CheckpointManagerOptions(max_to_keep=2)
    with ocp.CheckpointManager(epath.Path("gs://bucket/run/checkpoints"), options=options) as manager:
        for step in (1, 2, 3):
            manager.save(step, args=ocp.args.StandardSave(jax.tree.map(lambda x, step=step: x + step, state)))
        manager.wait_until_finished()
    steps = {name.split("/")[2] for name in cloud.objects.names("run/checkpoints/")}
    assert {step for step in steps if step.isdigit()} == {"2", "3"}
    with ocp.CheckpointManager(epath.Path("gs://bucket/run/checkpoints")) as manager:
        restored = manager.restore(3, args=ocp.args.StandardRestore(state))
    assert np.array_equal(restored["weights"], state["weights"] + 3)
