"""The paths of runs and of their checkpoints, on a disk or in a bucket: RUN, RUN/checkpoints/STEP and RUN/best."""

import atexit
import re
import shutil
import tempfile
from pathlib import Path

from etils import epath

from mixer_jax.bucket import SCHEME, Bucket
from mixer_jax.checkpoints.committed_steps import CHECKPOINTS
from mixer_jax.checkpoints.released import is_remote
from mixer_jax.errors import UserError
from mixer_jax.storage import MAX_JSON_BYTES, parse_json, read_json

BEST = "best.json"  # checkpoints/best.py writes this file.
FILES_OF_WEIGHTS = (".npz", ".safetensors", ".safetensors.index.json")


def locate(path: str) -> tuple[epath.Path, int | None]:
    """Return (a run's folder, a step) for RUN/checkpoints/STEP and RUN/best, and (the folder, None) for RUN itself.

    Raises UserError for any other path.
    """
    directory = epath.Path(path).expanduser().resolve()
    if (directory / CHECKPOINTS).is_dir():
        return directory, None
    if directory.name == Path(BEST).stem and (directory.parent / CHECKPOINTS).is_dir():
        step = read_json(Path(directory.parent / BEST)).get("step")
        if not isinstance(step, int):
            raise UserError(f"{directory.parent} has no best checkpoint: runs with config.checkpoint.best have one.")
        return directory.parent, step
    if not directory.exists():
        raise UserError(f"There is no {path}.")
    if directory.parent.name == CHECKPOINTS and re.fullmatch(r"\d+", directory.name) and directory.is_dir():
        return directory.parent.parent, int(directory.name)
    raise UserError(
        f"{path} is neither a run's folder (with {CHECKPOINTS}/ in it) nor one of its {CHECKPOINTS}/STEP, nor its best."
    )


def is_run_in_bucket(path: str) -> bool:
    """Return whether a path is gs://BUCKET/RUN, or that of one of its checkpoints, and not that of a file of weights."""
    return path.startswith(SCHEME) and not path.endswith(FILES_OF_WEIGHTS)


def locate_in_bucket(url: str) -> tuple[Bucket, int | None]:
    """Return (a run, a step) for RUN/checkpoints/STEP and RUN/best in a bucket, and (the run, None) for RUN itself.

    Raises UserError for a best.json that is damaged, and the errors of `Bucket.read`.
    """
    if match := re.fullmatch(rf"(.+)/{CHECKPOINTS}/(\d+)/?", url):
        return Bucket(match[1]), int(match[2])
    folder, _, last = url.rstrip("/").rpartition("/")
    around = Bucket(folder) if last == Path(BEST).stem else None
    if around and (text := around.read_whole(BEST, MAX_JSON_BYTES)):
        step = parse_json(text, f"{folder}/{BEST}").get("step")
        if not isinstance(step, int):
            raise UserError(f"{folder}/{BEST} is damaged: it names no step.")
        return around, step
    return Bucket(url), None


def config_file(path: str) -> str:
    """Return the path of the config.json of the run that `path` belongs to. Raises UserError if there is none.

    For a run in a bucket it is a copy, which is removed when this process ends.
    """
    is_run = is_run_in_bucket(path) or (not is_remote(path) and not Path(path).expanduser().is_file())
    file = (_copy_config(path) if is_run_in_bucket(path) else locate(path)[0] / "config.json") if is_run else None
    if file is None or not file.exists():
        missing = "there is no config.json" if is_run else "that is no run's folder"
        raise UserError(
            f"Without --config, the config is that of the run in --checkpoint={path}; but {missing}. Add --config=FILE."
        )
    return str(file)


def _copy_config(url: str) -> Path | None:
    """Return a copy of the config.json of a run in a bucket, or None if there is none."""
    text = locate_in_bucket(url)[0].read_whole("config.json", MAX_JSON_BYTES)
    if text is None:
        return None
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "config.json").write_bytes(text)
    return folder / "config.json"
