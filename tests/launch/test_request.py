"""What can be asked for, and what a refusal says."""

import pytest
from launch.requests import CONFIG, REQUESTS

from mixer_jax.errors import UserError
from mixer_jax.launch.request import check, hosts_of_slice

TPU, FLEX, GKE, SLURM = REQUESTS["v4-64"], REQUESTS["v5litepod-16-flex-start"], REQUESTS["gke"], REQUESTS["slurm"]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_requests_of_the_recorded_lists_can_be_made(name: str):
    assert check(REQUESTS[name]) is REQUESTS[name]


@pytest.mark.parametrize(
    ("request_", "change", "message"),
    [
        (TPU, {"name": "L16"}, "--name=L16: it must be a-z"),
        (TPU, {"name": "a" * 40}, "at most 39 characters"),
        (TPU, {"max_hours": 0}, "--max-hours=0"),
        (TPU, {"type": "v4-65"}, "Choose one of v4-8, v4-16"),
        (TPU, {"type": "v5lite-8"}, "Choose one of v5litepod-8"),
        (TPU, {"type": "h100"}, "Choose one of v2, v3, v4"),
        (TPU, {"type": "tpu7x-8"}, "see launch gke"),
        (TPU, {"zone": "europe"}, "--zone=europe"),
        (TPU, {"project": "my project"}, "--project=my project"),
        (TPU, {"root": "s3://bucket"}, "gs://BUCKET/PATH"),
        (TPU, {"root": "gs://b/$(x)"}, "--bucket=gs://b"),
        (TPU, {"queued": False, "slices": 2}, "--queued"),
        (FLEX, {"queued": False}, "--flex-start: it must be used with --queued"),
        (FLEX, {"type": "v4-64"}, "v5litepod or v6e"),
        (FLEX, {"max_hours": 168}, "at most 167.75"),
        (TPU, {"type": "v3-32", "slices": 2}, "1 with v2, v3"),
        (TPU, {"python": "3.12"}, "--python=3.12"),
        (TPU, {"env": {"a b": "1"}}, "NAME=VALUE"),
        (TPU, {"env": {"A": "1\n2"}}, "one line"),
        (TPU, {"env": {"JAX_ENABLE_X64": "1"}}, "JAX_ENABLE_X64"),
        (TPU, {"words": ("--config.seed=1",)}, "--config=FILE.py"),
        (TPU, {"words": (CONFIG, "--workdir=gs://b/x")}, "the launch sets --workdir"),
        (TPU, {"words": (CONFIG, "--nodistributed")}, "nodistributed"),
        (TPU, {"words": (CONFIG, "--config.sead=1")}, 'Did you mean "seed"'),
        (TPU, {"words": (CONFIG, "--config.batch_size=-1")}, "batch_size"),
        (TPU, {"words": (CONFIG, "--config.seed=%a")}, "--runs=1"),
        (GKE, {"topology": "8*8"}, "--topology"),
        (GKE, {"topology": "2x3"}, "whole hosts"),
        (GKE, {"image": ""}, "--image="),
        (SLURM, {"root": "shared"}, "--root=shared"),
        (SLURM, {"runs": 3}, "--config.seed=%a"),
    ],
)
def test_a_mistake_is_refused_with_what_to_type(request_, change, message):
    with pytest.raises(UserError) as refused:
        check(request_._replace(**change))
    assert message in str(refused.value)


def test_a_slice_of_64_chips_with_4_a_host_has_16_hosts():
    assert hosts_of_slice(GKE) == 16
