"""What is imported is required, what is required is locked, and the locks agree."""

import ast
import importlib.metadata
import re
import sys
import tomllib

import pytest
from conftest import ROOT

import mixer_jax

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"": "requirements.txt"} | {name: f"requirements-{name}.txt" for name in ("dev", "tpu", "gcs", "export")}

DISTRIBUTIONS = {"mlflow": "mlflow-skinny"}  # {module: what brings it}, where it is not installed and has another name


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bounds(requirements: list[str]) -> dict[str, str]:
    """{name: lowest version} of requirements such as "jax[tpu]>=0.10.2"."""
    versions = {}
    for requirement in requirements:
        if own := re.fullmatch(r"mixer_jax\[([\w,]+)\]", requirement):
            versions |= bounds([inner for extra in own[1].split(",") for inner in PROJECT["optional-dependencies"][extra]])
        else:
            name, version = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[\w+\])?(?:>=|==)([0-9.]+(?:post\d+)?)", requirement).groups()
            versions[normalized(name)] = version
    return versions


def locked(file: str) -> dict[str, str]:
    """{name: version} of a lock."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / file).read_text(), re.MULTILINE))


def imported_packages() -> set[str]:
    names = set()
    for file in [*(ROOT / "mixer_jax").rglob("*.py"), *(ROOT / "configs").rglob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"]:
        for node in ast.walk(ast.parse(file.read_text())):
            names |= {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) else set()
    return names - sys.stdlib_module_names - {"mixer_jax"}


def test_every_import_is_of_a_requirement():
    extras = PROJECT["optional-dependencies"]
    requirements = set(bounds(PROJECT["dependencies"])).union(*(bounds(extras[name]) for name in extras if name != "dev"))
    distributions = importlib.metadata.packages_distributions()
    for name in imported_packages():
        candidates = distributions.get(name, [DISTRIBUTIONS.get(name, name)])
        assert {normalized(distribution) for distribution in candidates} & requirements, name


@pytest.mark.parametrize("extra", LOCKS)
def test_a_lock_has_the_lowest_version_that_is_promised_of_each_requirement(extra: str):
    requirements = PROJECT["dependencies"] + PROJECT["optional-dependencies"].get(extra, [])
    versions = locked(LOCKS[extra])
    for name, version in bounds(requirements).items():
        assert versions[name] == version, name


@pytest.mark.parametrize("extra", LOCKS)
def test_a_lock_has_a_hash_for_everything_names_no_server_and_agrees_with_what_users_need(extra: str):
    text = (ROOT / LOCKS[extra]).read_text()
    versions = locked(LOCKS[extra])
    assert "://" not in text and "--index" not in text
    assert len(re.findall(r"^\S+==.*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)) == len(versions)
    assert locked("requirements.txt").items() <= versions.items()


def test_the_planners_compiler_is_that_of_a_tpu():
    (compiler,) = PROJECT["optional-dependencies"]["plan"]
    for file in ("requirements-plan.txt", "requirements-tpu.txt"):
        assert f"libtpu=={locked(file)['libtpu']}" == compiler


def test_the_version_stands_once():
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"[0-9.]+", mixer_jax.__version__)
