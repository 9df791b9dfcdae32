"""``--config`` takes a file or the name of a shipped config."""

from pathlib import Path

import pytest

from pet_cifar.cli.config_files import find_config, run_name, shipped_configs
from pet_cifar.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_configs_of_the_checkout_are_shipped() -> None:
    assert shipped_configs() == {file.stem: file for file in CONFIGS.glob("*.yaml")}


@pytest.mark.parametrize("name", ["digits_residual", "digits_residual.yaml"])
def test_a_shipped_config_is_found_by_its_name(name: str) -> None:
    assert find_config(name) == CONFIGS / "digits_residual.yaml"
    assert run_name(find_config(name)) == "digits_residual"


@pytest.mark.parametrize("name", ["digits_residual", "digits_residual.yaml"])
def test_a_file_in_the_working_directory_wins(name: str) -> None:
    Path(name).write_text("trainer: {}\n")
    assert find_config(name) == Path(name)


def test_a_name_that_is_no_config_is_refused() -> None:
    Path("configs").mkdir()
    for name in ("digit_residual", "configs", "configs/other.yaml", "x" * 5000):
        with pytest.raises(InputError) as caught:
            find_config(name)
        assert "--config" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"did you mean digits_residual\?"):
        find_config("digit_residual")
