import os
from pathlib import Path

import pytest

from pet_cifar.data.root import state_directories
from pet_cifar.data.test_log import LoggedTest, log_test, read_tests
from pet_cifar.errors import InputError


def logged(pictures: str = "abc", seed: str = "0") -> LoggedTest:
    return LoggedTest("2026-01-01T00:00:00+00:00", pictures, "experiment", seed, "checkpoint", "name/version_0")


def test_tests_of_the_same_pictures_are_remembered(tmp_path: Path) -> None:
    assert read_tests(tmp_path, "abc") == []
    assert not list(tmp_path.iterdir()), "reading makes nothing"
    for test in (logged(), logged("other"), logged(seed="1")):
        log_test(tmp_path, test)
    assert read_tests(tmp_path, "abc") == [logged(), logged(seed="1")]
    assert read_tests(tmp_path, "other") == [logged("other")]


def test_data_without_a_folder_is_remembered_in_the_users_cache(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    log_test(root, logged())
    assert not root.exists()
    assert read_tests(root, "abc") == [logged()]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_remembered_in_the_users_cache(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    log_test(tmp_path, logged())
    assert read_tests(tmp_path, "abc") == [logged()]


def test_a_log_that_cannot_be_written_stops_no_test(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = state_directories(tmp_path)[0] / "tests.csv"
    file.mkdir(parents=True)
    log_test(tmp_path, logged())
    assert str(tmp_path) in caplog.text


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    file = state_directories(tmp_path)[0] / "tests.csv"
    file.parent.mkdir()
    file.write_bytes(b"time,pictures\n\xff\xfe")
    with pytest.raises(InputError, match="tests.csv"):
        read_tests(tmp_path, "abc")
