"""`launch delete` can be repeated, whatever is left of the launch, and wherever the deletion before was cut off."""

import itertools

import pytest
from launch.requests import BUNDLE, MOMENT, REQUESTS

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.launch import carry_out, control, record
from mixer_jax.launch.commands import Observed, Write, record_steps
from mixer_jax.launch.record import find_record, state_folder
from mixer_jax.launch.request import Request
from mixer_jax.storage import Storage, open_storage

BACKENDS = ["v3-512", "v4-64", "v6e-64x2", "gke", "slurm"]


class World:
    """A launch whose machines or jobs are there until a command deletes them. The step number `cut_at` of a deletion is the last.

    Before each change and after it there is a step.
    """

    def __init__(self, request: Request):
        self.request, self.called = request, []
        self.is_there, self.steps, self.cut_at = True, itertools.count(), -1
        self.write("runs/l16/config.json", b"{}")
        self.launch()

    def launch(self) -> None:
        self.is_there = True
        for step in record_steps(self.request, BUNDLE, MOMENT._replace(state_folder=state_folder("l16"))):
            assert isinstance(step, Write)
            folder, _, file = step.path.rpartition("/")
            open_storage(folder).write(file, step.content)
        for file in ("launches/l16/job.env", "launches/l16/hosts/1/w-0", "launches/l16/zzz"):
            self.write(file, b"x")
        open_storage(state_folder("l16")).write("host.sh", b"x")

    def write(self, file: str, content: bytes) -> None:
        open_storage(self.request.root).write(file, content)

    def step(self) -> None:
        if next(self.steps) == self.cut_at:
            raise KeyboardInterrupt

    def run(self, words, **_):
        """Be the program that deletes. gcloud fails if there is nothing to delete, the others do not."""
        self.step()
        self.called.append(words)
        code = 0 if self.is_there or self.request.backend != "tpu" else 1
        self.is_there = False
        self.step()
        return type("Ended", (), {"returncode": code})

    def observe(self, request: Request) -> Observed:
        if not self.is_there or (request.queued and not self.request.queued):
            return Observed()
        names = ["l16"] if self.request.slices == 1 else [f"l16-{number}" for number in range(self.request.slices)]
        return Observed("ACTIVE" if request.queued else "", dict.fromkeys(names, "READY"))

    def files(self) -> list[str]:
        """What is left of the launch, here and where it runs."""
        here, there = open_storage(state_folder("l16")), open_storage(self.request.root)
        return [*here.names(), *(name for name in there.names() if not name.startswith("runs/"))]


@pytest.fixture
def make(monkeypatch, tmp_path, cloud):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def make(name: str) -> World:
        request = REQUESTS[name]._replace(root=f"{tmp_path}/shared" if name == "slurm" else "gs://bucket/mixer")
        world = World(request)

        class CutOff:
            """A folder whose deletions are steps."""

            def __init__(self, storage: Storage):
                self._storage = storage
                self.names, self.read_whole = storage.names, storage.read_whole

            def delete(self, file: str) -> None:
                world.step()
                self._storage.delete(file)
                world.step()

        monkeypatch.setattr(record, "open_storage", lambda path: CutOff(open_storage(path)))
        monkeypatch.setattr(carry_out.subprocess, "run", world.run)
        monkeypatch.setattr(control.tpu, "observe_machines", world.observe)
        return world

    return make


@pytest.mark.parametrize("with_root", [False, True], ids=["", "named"])
@pytest.mark.parametrize("name", BACKENDS)
def test_a_deletion_that_was_cut_off_anywhere_is_finished_by_the_next_one(name: str, with_root: bool, make, capsys):
    world = make(name)
    root = world.request.root if with_root else ""
    for cut_at in itertools.count():
        world.steps, world.cut_at = itertools.count(), cut_at
        try:
            control.delete("l16", root)
        except KeyboardInterrupt:
            # What costs is recorded, here and where it runs, so that anybody can repeat the command.
            assert not world.is_there or (find_record("l16") and find_record("l16", world.request.root))
            world.cut_at = -1
            control.delete("l16", root)
            assert not world.is_there and world.files() == []
            world.launch()
        else:
            break
    assert cut_at >= 14  # Two steps for the command, and two for each of six files.
    assert not world.is_there and world.files() == []
    assert open_storage(world.request.root).names() == ["runs/l16/config.json"]
    capsys.readouterr()
    world.cut_at = -1
    control.delete("l16", root)
    assert "There is nothing of the name l16" in capsys.readouterr().out
    assert open_storage(world.request.root).names() == ["runs/l16/config.json"]


@pytest.mark.parametrize("name", BACKENDS[:2])
def test_machines_without_a_record_are_deleted_where_the_user_says_that_they_are(name: str, make, capsys):
    world = make(name)
    record.forget("l16", world.request.root)
    control.delete("l16", zone="europe-west4-a", project="p")
    (words,) = world.called
    assert words[3:6] == ["queued-resources" if world.request.queued else "tpu-vm", "delete", "l16"]
    assert {"--zone=europe-west4-a", "--project=p"} <= set(words) and "l16 is deleted." in capsys.readouterr().out
    control.delete("l16", zone="europe-west4-a", project="p")
    assert len(world.called) == 1 and "There is nothing" in capsys.readouterr().out
    with pytest.raises(UserError, match="--project=: it must be"):
        control.delete("l16", zone="europe-west4-a")


def test_jobs_of_slurm_without_a_record_are_canceled_by_their_name(make):
    world = make("slurm")
    record.forget("l16", world.request.root)
    control.delete("l16", world.request.root)
    assert world.called == [["scancel", "--me", "--name=l16"]]


def test_a_resource_that_cannot_be_deleted_keeps_its_record(make, monkeypatch):
    world = make("v4-64")
    monkeypatch.setattr(carry_out.subprocess, "run", lambda *_, **__: type("Ended", (), {"returncode": 1}))
    with pytest.raises(EnvironmentFault, match="ended with 1"):
        control.delete("l16")
    assert find_record("l16") and find_record("l16", world.request.root)


def test_a_launch_of_the_same_name_elsewhere_is_left_alone(make):
    world = make("v4-64")
    elsewhere = world.request._replace(root="gs://bucket/other")
    for step in record_steps(elsewhere, BUNDLE, MOMENT._replace(state_folder="")):
        if step.path.startswith("gs://"):
            open_storage(elsewhere.folder).write("launch.json", step.content)
    control.delete("l16", elsewhere.root)
    assert find_record("l16", elsewhere.root) is None and find_record("l16") and find_record("l16", world.request.root)
    world.called.clear()
    control.delete("l16", "gs://bucket/nowhere")
    assert not world.called and find_record("l16")


@pytest.mark.parametrize("name", ["", ".", "..", "../l16", "a/b", "L16"])
def test_a_name_that_no_launch_can_have_is_refused_before_anything_is_removed(name: str, make):
    world = make("v4-64")
    before = world.files()
    with pytest.raises(UserError, match="--name="):
        control.delete(name, world.request.root)
    assert world.files() == before
