"""The README's example is run as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


# on a machine of two cores, Lightning advises more workers for every loader; ours are threads
@pytest.mark.filterwarnings("ignore")
def test_the_python_example_trains_and_tests_in_under_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line]) < 10
    exec(compile(example, "README.md", "exec"), {})
    assert "'test/acc': " in capsys.readouterr().out


def test_every_config_that_the_readme_names_is_there() -> None:
    table = README.read_text().split("## Configs")[1]
    for config in (README.parent / "configs").glob("*.yaml"):
        stem = re.sub(r"_(un)?frozen$", "", config.stem)
        assert f"`{stem}" in table, config
