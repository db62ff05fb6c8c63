"""What is said of versions that are too old or untested; the versions are faked."""

from __future__ import annotations

import platform
import re
from importlib import metadata

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism import versions
from support.requirements import pins, required
from support.tree import pyproject

FINE = {"python": "3.11.7", "torch": "2.10.0+rocm7.0", "megatron-core": "0.16.1"}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The versions that are installed; change them, or take one away."""
    found = dict(FINE)

    def version(name: str) -> str:
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(platform, "python_version", lambda: found["python"])
    return found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("python", "3.11.0"),
        ("python", "3.14.0rc1"),
        ("torch", "2.10.0a0+gitunknown"),
        ("torch", "2.14.1"),
        ("torch", "3.0.0"),
        ("megatron-core", "0.16.0"),
        ("megatron-core", "0.19.2"),
        ("megatron-core", "0.19.0rc3"),
        ("megatron-core", "of our own"),
    ],
)
def test_supported(here: dict[str, str], name: str, found: str) -> None:
    here[name] = found
    versions.check()
    assert not list(versions.unsupported())


@pytest.mark.parametrize(
    ("name", "found", "said"),
    [
        ("python", "3.10.13", 'python = "3.10.13": frontrunner needs 3.11 or newer; create the environment'),
        ("torch", "2.9.1+rocm6.4", 'torch = "2.9.1+rocm6.4": frontrunner needs 2.10 or newer; pip install'),
        ("torch", "1.13.1", 'torch = "1.13.1": frontrunner needs 2.10 or newer; pip install'),
        ("megatron-core", "0.15.3", 'megatron-core = "0.15.3": frontrunner needs 0.16 to 0.19; pip install'),
    ],
)
def test_too_old(here: dict[str, str], name: str, found: str, said: str) -> None:
    here[name] = found
    with pytest.raises(SpecError) as caught:
        versions.check()
    message = str(caught.value)
    assert message.startswith(said) and "\n" not in message


def test_all_that_is_too_old_is_said_at_once(here: dict[str, str]) -> None:
    here |= {"python": "3.9.2", "torch": "2.6.0"}
    with pytest.raises(SpecError) as caught:
        versions.check()
    assert [violation.path for violation in caught.value.violations] == ["python", "torch"]
    with pytest.raises(SpecError) as caught:
        versions.check(["python"])
    assert [violation.path for violation in caught.value.violations] == ["python"]


@pytest.mark.parametrize("found", ["0.20.0", "1.0.0"])
def test_newer_than_tested_is_a_warning(here: dict[str, str], found: str) -> None:
    here["megatron-core"] = found
    versions.check()
    (wrong,) = versions.unsupported()
    assert not wrong.too_old
    assert str(wrong) == (
        f"megatron-core {found}: newer than the tested versions, 0.16 to 0.19; "
        "if anything fails, pip install 'megatron-core<0.20'"
    )


def test_what_leaves_no_record_is_taken_as_it_is(here: dict[str, str]) -> None:
    del here["megatron-core"]
    assert not list(versions.unsupported())


def test_the_project_asks_for_what_is_supported() -> None:
    bounds = {requirement.name: str(requirement.specifier) for requirement in required("train")}
    bounds["python"] = pyproject()["project"]["requires-python"]
    for name, supported in versions.SUPPORTED.items():
        release = re.match(r">=(\d+)\.(\d+)", bounds[name])
        assert release and (int(release[1]), int(release[2])) == supported.oldest, name
    newest = versions.SUPPORTED["megatron-core"].newest
    pinned = re.search(r"(\d+)\.(\d+)", str(pins()["megatron-core"].specifier))
    assert newest and pinned and (int(pinned[1]), int(pinned[2])) <= newest
