"""A wheel, installed where there is no checkout, carries all that a user needs."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """The wheel, built from a copy, so that the build leaves nothing in the checkout."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    for name in ("pet_cifar", "configs"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", *build, str(copy)], check=True, capture_output=True, text=True)
    (file,) = tmp_path.glob("*.whl")
    return file


def test_the_installed_wheel_trains_digits(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    own = (file for pattern in ("*.py", "*.jinja") for file in (CHECKOUT / "pet_cifar").rglob(pattern))
    package = {file.relative_to(CHECKOUT).as_posix() for file in own}
    configs = {f"pet_cifar/configs/{file.name}" for file in (CHECKOUT / "configs").glob("*.yaml")}
    assert package | configs | {"pet_cifar/py.typed"} <= names
    assert not any(name.startswith(("tests", "configs", "benchmarks")) for name in names)

    target = tmp_path / "site"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True, text=True)
    words = ["fit", "--config", "digits_residual", "--model.widths", "[8]", "--trainer.max_epochs", "1"]
    words += ["--trainer.limit_train_batches", "2"]
    # -I leaves out the working directory and PYTHONPATH; what stands first on the path wins over the editable install.
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import pet_cifar; from pet_cifar.cli.main import main; "
        f"print('package:', pet_cifar.__file__); main({words!r})"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert f"package: {target}" in done.stdout
    assert "run directory: lightning_logs/digits_residual/version_0" in done.stdout
