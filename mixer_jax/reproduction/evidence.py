"""What shows where a figure of ours comes from: the run's folder, the commit that it ran at, and the digest of its parameters."""

import dataclasses

from mixer_jax.report.forms import check_form


@dataclasses.dataclass(frozen=True)
class Evidence:
    """A finished run behind a figure.

    Attributes:
      run: its folder.
      top1: its accuracy, in percent.
      git_commit: the commits of its starts, in order and each once, or "" if the run has no record of its starts.
      params_sha256: the digest of the parameters that were evaluated, or "" if it is not recorded.
    """

    run: str
    top1: float
    git_commit: str
    params_sha256: str


def evidence_of(run: str, top1: float, record: dict, results: dict) -> Evidence:
    """Return the evidence of a run whose accuracy is `top1`, a share.

    Args:
      run: its folder.
      top1: its accuracy.
      record: the content of its run.json.
      results: the content of its results.json.

    Raises:
      UserError: one of the two is damaged.
    """
    check_form(f"{run}/run.json", record)
    check_form(f"{run}/results.json", results)
    commits = dict.fromkeys(start["git_commit"] for start in record.get("starts", []))
    return Evidence(run, 100 * top1, ", ".join(commits), results.get("params_sha256", ""))
