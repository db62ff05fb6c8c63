from __future__ import annotations

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import load_run
from frontrunner.configs.secrets import holds_secret, masked


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "db_password"])
def test_names_of_secrets(name: str) -> None:
    assert holds_secret(name, "x")
    assert not holds_secret(name, "")


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "NCCL_DEBUG", "KEYBOARD", "FI_MR_CACHE_MONITOR"])
def test_other_names(name: str) -> None:
    assert not holds_secret(name, "x")
    assert not holds_secret(name, "http://proxy:3128")
    assert holds_secret(name, "http://user:pw@proxy:3128")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("get https://user:pw@host/x now", "get https://user:***@host/x now"),
        ("https:/user:p:w@host", "https:/user:***@host"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("user@host:/path", "user@host:/path"),
        ("no address: a@b", "no address: a@b"),
    ],
)
def test_passwords_in_addresses(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_run_file_keeps_no_secret() -> None:
    with pytest.raises(SpecError) as caught:
        load_run("gpt-22b-frontier", ["slurm.environment={HF_TOKEN: abcdef}"])
    assert "slurm.environment.HF_TOKEN" in str(caught.value) and "abcdef" not in str(caught.value)
    load_run("gpt-22b-frontier", ["slurm.environment={HF_TOKEN: null}"])
