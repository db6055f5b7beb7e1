"""What runs leave in their folders, written by hand."""

import json
from pathlib import Path

from mixer_jax.sweep.job import Job, config_of


def leave(job: Job, evals: dict[str, dict] | None = None, step: int = 0) -> Path:
    """Write what a job leaves that has ended, or is at `step`: its config, its starts, and the figures of its evaluators."""
    config, run = config_of(job), Path(job.workdir)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(config.to_json())
    (run / "run.json").write_text(json.dumps({"starts": [{"total_steps": config.total.steps}]}))
    if evals is not None:
        (run / "results.json").write_text(json.dumps({"step": step or config.total.steps, "evals": evals}))
    return run
