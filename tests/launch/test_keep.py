"""A slice that was lost is asked for again, until the run is done or its hours are used up."""

import dataclasses

import pytest
from launch.requests import REQUESTS

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.launch.commands import Observed
from mixer_jax.launch.keep import MAX_LAUNCHES, Keeper, keep

REQUEST = REQUESTS["v4-64"]
READY, LOST = Observed("ACTIVE", {"l16": "READY"}), Observed("SUSPENDED")
DONE, STOPPED = READY._replace(ended={"a": 0, "b": 0}), READY._replace(ended={"a": 75})


@dataclasses.dataclass
class World:
    """What a keeper sees, one state after the other, and what it does."""

    states: list[Observed]
    hours: float = 1.0
    steps: list[int] = dataclasses.field(default_factory=lambda: [0])
    launched: list[float] = dataclasses.field(default_factory=list)
    deleted: int = 0

    def keep(self) -> None:
        def delete() -> None:
            self.deleted += 1

        def newest_step() -> int:
            return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]

        states = iter(self.states)
        keep(
            REQUEST, Keeper(lambda: next(states), lambda _: self.hours, newest_step, self.launched.append, delete, lambda _: None)
        )


def test_what_is_lost_is_launched_again_with_the_hours_that_are_left_and_deleted_when_it_is_done(capsys):
    world = World([READY, LOST, Observed("PROVISIONING"), READY, DONE], hours=10)
    world.keep()
    assert world.launched == [38] and world.deleted == 1
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["ready", "lost", "waiting", "ready"]


def test_no_slice_is_asked_for_when_the_hours_are_used_up():
    world = World([LOST], hours=48)
    with pytest.raises(UserError, match="has used its 48 hours"):
        world.keep()
    assert not world.launched and world.deleted == 1


@pytest.mark.parametrize("state", [READY, Observed("ACTIVE", {"l16": "REPAIRING"})], ids=["ready", "waiting"])
def test_machines_that_are_there_when_hours_and_margin_are_over_are_deleted(state):
    within = World([state, DONE], hours=48.25)
    within.keep()
    assert within.deleted == 1
    beyond = World([state], hours=48.26)
    with pytest.raises(UserError, match="has used its 48 hours"):
        beyond.keep()
    assert beyond.deleted == 1 and not beyond.launched


def test_hosts_that_have_all_given_up_are_started_again_so_often_as_slices_that_were_lost():
    given_up = READY._replace(num_hosts=2, ended={"a": 1, "b": 143})
    world = World([given_up._replace(ended={"a": 1}), given_up, DONE])
    world.keep()
    assert len(world.launched) == 1
    world = World([given_up] * 20)
    with pytest.raises(EnvironmentFault, match="ended each time without a newer checkpoint"):
        world.keep()
    assert len(world.launched) == MAX_LAUNCHES and world.deleted == 1


def test_no_slice_is_asked_for_when_several_were_lost_without_a_newer_checkpoint():
    world = World([LOST] * 20, steps=[4])
    with pytest.raises(EnvironmentFault, match="without a newer checkpoint"):
        world.keep()
    assert len(world.launched) == MAX_LAUNCHES and world.deleted == 1


def test_a_run_that_makes_progress_may_lose_any_number_of_slices():
    world = World([LOST] * 20 + [DONE], steps=list(range(30)))
    world.keep()
    assert len(world.launched) == 20


@pytest.mark.parametrize(("code", "reason"), [(2, "a person must change something"), (124, "hours are used up")])
def test_a_run_that_has_ended_for_good_is_deleted_and_the_reason_is_said(code, reason):
    world = World([READY._replace(ended={"a": code, "b": 1})])
    with pytest.raises(UserError, match=reason):
        world.keep()
    assert world.deleted == 1


def test_a_run_that_was_stopped_is_left_alone():
    world = World([STOPPED])
    with pytest.raises(UserError, match="was stopped"):
        world.keep()
    assert not world.deleted and not world.launched


def test_a_slice_that_saved_before_it_was_lost_is_launched_again():
    world = World([LOST._replace(ended={"a": 75}), DONE])
    world.keep()
    assert len(world.launched) == 1


def test_a_cloud_that_does_not_answer_for_a_while_is_asked_again():
    world, answers = World([LOST, LOST, DONE]), iter([EnvironmentFault("no answer"), None, None, None])
    launches = iter([EnvironmentFault("no room"), None])

    def failing(errors, function):
        def call(*arguments):
            if error := next(errors):
                raise error
            return function(*arguments)

        return call

    states = iter(world.states)
    observe, launch = failing(answers, lambda: next(states)), failing(launches, world.launched.append)
    keep(REQUEST, Keeper(observe, lambda _: 1.0, lambda: 0, launch, lambda: None, lambda _: None))
    assert world.launched == [47]
