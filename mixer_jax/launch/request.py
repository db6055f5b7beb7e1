"""What the user asks to launch, checked: a request that is refused here costs nothing yet."""

import difflib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from mixer_jax import app
from mixer_jax.bucket import is_in_bucket
from mixer_jax.environment import check_environment
from mixer_jax.errors import UserError
from mixer_jax.validation import validate

PYTHON = "3.12.16"  # The interpreter that hosts run by default.
NUMBER_OF_RUN = "%a"  # Stands for the number of a run in an array of SLURM, as in the names of its files.
NAME = re.compile(r"[a-z]([a-z0-9-]{0,37}[a-z0-9])?")
BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/[\w.-]+)*")
ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
RUN_FOLDER = re.compile(r"gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/[\w.,=+-]+)+")
WORD = re.compile(r"[\w.:/@+-]+")  # Projects, images, accelerators and so on.
VARIABLE = re.compile(r"[A-Za-z_]\w*")
# The flags of train.py that a launch sets.
SET_HERE = ("workdir", "distributed", "coordinator", "num_processes", "process_id")

# {generation in a name such as v3-128: (its runtime version, the sizes it rents)}. The sizes of v2, v3, v4 and v5p are
# cores, those of v5litepod and v6e are chips. Source: the pages "TPU v3" to "TPU v6e" and "TPU software versions" of Cloud TPU.
TYPES = {
    "v2": ("tpu-ubuntu2204-base", (8, 32, 128, 256, 512)),
    "v3": ("tpu-ubuntu2204-base", (8, 32, 64, 128, 256, 512, 1024, 2048)),
    "v4": ("tpu-ubuntu2204-base", (8, 16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1536, 2048, 4096)),
    "v5litepod": ("v2-alpha-tpuv5-lite", (1, 4, 8, 16, 32, 64, 128, 256)),
    "v5p": ("v2-alpha-tpuv5", (8, 16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1536, 2048, 3072, 4096, 6144, 12288)),
    "v6e": ("v2-alpha-tpuv6e", (1, 4, 8, 16, 32, 64, 128, 256)),
}
NO_MULTISLICE = ("v2", "v3")
# A kind of machines that Cloud TPU deletes by itself after a time of at most seven days. Source: its page "Flex-start".
FLEX_START, FLEX_START_TYPES, MAX_FLEX_START_HOURS = "flex-start", ("v5litepod", "v6e"), 7 * 24
MARGIN_HOURS = 0.25  # Machines may be there longer than the run may last: to boot, to install, and to save at the end.


class Request(NamedTuple):
    """What the user asks for. Fields that a backend does not have keep their defaults.

    Attributes:
      backend: "tpu" (virtual machines and queued resources of Cloud TPU), "gke" or "slurm".
      name: the name of the launch and of its run.
      root: where bundles, launches and runs lie: gs://BUCKET/PATH or, for SLURM, a folder that all nodes share.
      max_hours: the limit of the run's time.
      words: the arguments of train.py.
      env: variables of the run's environment.
      python: the version of Python that a host installs, or the path of an interpreter there that has all packages.
      flags: further flags of the command, or lines of the file, that creates the resource.
      type, zone, project, queued, capacity, slices: for "tpu". `capacity` is "", "spot", "reserved" or FLEX_START. GKE has slices
        too.
      image, accelerator, topology, chips_per_host: for "gke".
      nodes, gpus, runs: for "slurm": nodes of a run, GPUs of a node, and runs in an array.
      run_folder: for "tpu" and "gke": the folder of the run, if it is not to be `root`/runs/`name`.
    """

    backend: str
    name: str
    root: str
    max_hours: float
    words: Sequence[str]
    env: Mapping[str, str] = MappingProxyType({})
    python: str = PYTHON
    flags: Sequence[str] = ()
    type: str = ""
    zone: str = ""
    project: str = ""
    queued: bool = False
    capacity: str = ""
    slices: int = 1
    image: str = ""
    accelerator: str = ""
    topology: str = ""
    chips_per_host: int = 4
    nodes: int = 1
    gpus: int = 0
    runs: int = 1
    run_folder: str = ""

    @property
    def workdir(self) -> str:
        """The folder of the run. In an array, NUMBER_OF_RUN in it stands for the number of the run."""
        if self.run_folder:
            return self.run_folder
        return f"{self.root}/runs/{self.name}" + (f"-{NUMBER_OF_RUN}" if self.runs > 1 else "")

    @property
    def workdirs(self) -> list[str]:
        """The folders of all runs."""
        return [self.workdir.replace(NUMBER_OF_RUN, str(number)) for number in range(self.runs)]

    @property
    def folder(self) -> str:
        """The folder of the launch, with its record."""
        return f"{self.root}/launches/{self.name}"

    @property
    def command(self) -> list[str]:
        """The command that each host supervises."""
        is_alone = self.backend == "slurm" and self.nodes == 1
        return ["train.py", *self.words, f"--workdir={self.workdir}", *([] if is_alone else ["--distributed"])]

    @property
    def runtime_version(self) -> str:
        """The software of a TPU's virtual machine."""
        return TYPES[self.type.partition("-")[0]][0]


def check(request: Request) -> Request:
    """Return the request. Raises UserError that says what to type for one that cannot be launched."""
    check_name(request.name)
    _require(0 < request.max_hours <= 10_000, f"--max-hours={request.max_hours:g}", "more than 0 and at most 10000")
    _check_environment(request.env)
    _check_words(request)
    _require(
        re.fullmatch(r"\d+\.\d+\.\d+|/[\w./+-]+", request.python), f"--python={request.python}",
        f"a version such as {PYTHON}, which hosts install, or the path of an interpreter there with all packages",
    )  # fmt: skip
    {"tpu": _check_tpu, "gke": _check_gke, "slurm": _check_slurm}[request.backend](request)
    return request


def check_name(name: str) -> None:
    """Check the name of a launch. Raises UserError for one that nothing can have."""
    _require(NAME.fullmatch(name), f"--name={name}", "a-z, 0-9 and -, a letter first, at most 39 characters")


def check_place(zone: str, project: str) -> None:
    """Check where machines of Cloud TPU are. Raises UserError for a place that cannot be."""
    _require(ZONE.fullmatch(zone), f"--zone={zone}", "a zone such as europe-west4-a")
    _require(WORD.fullmatch(project), f"--project={project}", "the id of a project")


def _check_tpu(request: Request) -> None:
    _check_bucket(request.root)
    _check_run_folder(request)
    known = [f"{generation}-{size}" for generation, (_, sizes) in TYPES.items() for size in sizes]
    if request.type not in known:
        generation = request.type.partition("-")[0]
        near = [name for name in known if name.startswith(f"{generation}-")] or difflib.get_close_matches(request.type, known)
        raise UserError(
            f"--type={request.type}: no such TPU. Choose one of {', '.join(near or TYPES)}."
            + (" The Cloud TPU API does not rent TPU7x: see launch gke." if "7" in generation else "")
        )
    check_place(request.zone, request.project)
    if request.capacity == FLEX_START:
        _require(request.queued, f"--{FLEX_START}", "used with --queued")
        _require(request.type.startswith(FLEX_START_TYPES), f"--type={request.type}", f"with --{FLEX_START}, v5litepod or v6e")
        most = MAX_FLEX_START_HOURS - MARGIN_HOURS
        _require(request.max_hours <= most, f"--max-hours={request.max_hours:g}", f"at most {most:g} with --{FLEX_START}")
    if request.slices > 1:
        _require(request.queued, f"--slices={request.slices}", "used with --queued, which asks for several slices at once")
        _require(not request.type.startswith(NO_MULTISLICE), f"--slices={request.slices}", f"1 with {', '.join(NO_MULTISLICE)}")


def _check_gke(request: Request) -> None:
    _check_bucket(request.root)
    _check_run_folder(request)
    for option in ("image", "accelerator"):
        value = getattr(request, option)
        _require(WORD.fullmatch(value), f"--{option}={value}", "one word")
    chips = _chips(request.topology)
    whole = chips and chips % request.chips_per_host == 0
    _require(
        whole, f"--topology={request.topology} --chips-per-host={request.chips_per_host}",
        "those of the node pool, for example 8x8 and 4; a slice has whole hosts",
    )  # fmt: skip


def _check_run_folder(request: Request) -> None:
    folder = request.run_folder
    _require(not folder or RUN_FOLDER.fullmatch(folder), f"--run-folder={folder}", "gs://BUCKET/RUN")


def _check_slurm(request: Request) -> None:
    _require(request.root.startswith("/"), f"--root={request.root}", "the absolute path of a folder that all nodes share")


def _check_bucket(root: str) -> None:
    is_in_bucket(root)  # It names the kinds of storage.
    _require(BUCKET.fullmatch(root), f"--bucket={root}", "gs://BUCKET or gs://BUCKET/PATH")


def _check_environment(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        _require(VARIABLE.fullmatch(name), f"--env={name}={value}", "NAME=VALUE")
        _require(value.isprintable(), f"--env={name}={value!r}", "one line of printable characters")
    check_environment(env)


def _check_words(request: Request) -> None:
    """Check the arguments of train.py as it does itself, as far as no data are needed."""
    configs = [word for word in request.words if word.startswith("--config=")]
    _require(len(configs) == 1, "The command after --", "--config=FILE.py, with --config.NAME=VALUE for options")
    for flag in SET_HERE:
        given = [word for word in request.words if re.match(rf"--?{flag}\b", word)]
        _require(not given, " ".join(given), f"left out: the launch sets --{flag}")
    is_varied = any(NUMBER_OF_RUN in word for word in request.words)
    number = f"--config.seed={NUMBER_OF_RUN}"
    _require(
        (request.runs > 1) == is_varied, f"--runs={request.runs}", f"above 1 with, and only with, an argument such as {number}"
    )
    numbered = [word.replace(NUMBER_OF_RUN, "0") for word in request.words]
    overrides = [word for word in numbered if not word.startswith("--config=")]
    _require(all(word.startswith("--") for word in overrides), "The command after --", "words such as --config.NAME=VALUE")
    validate(app.read_config(configs[0].removeprefix("--config="), overrides))


def hosts_of_slice(request: Request) -> int:
    """Return the number of hosts of a slice of a GKE node pool, which the user has described."""
    return _chips(request.topology) // request.chips_per_host


def _chips(topology: str) -> int:
    """Return the number of chips of a topology such as 4x4x8, or 0 for another text."""
    if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2}", topology):
        return 0
    chips = 1
    for side in topology.split("x"):
        chips *= int(side)
    return chips


def _require(holds: object, what: str, must_be: str) -> None:
    if not holds:
        raise UserError(f"{what}: it must be {must_be}.")
