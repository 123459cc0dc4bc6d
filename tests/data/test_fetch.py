import hashlib
import subprocess
import zipfile

import pytest

from research.core.errors import UserError
from research.data import fetch

CONTENT = b"a corpus"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A stand-in for pip that gives `index.wheel`; counts how often it is asked."""
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))

    class Index:
        asked, wheel, error = 0, tmp_path / "pkg-1.0-py3-none-any.whl", None

    def run(command, **_):
        Index.asked += 1
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command and command[-1] == "pkg==1.0"
        if Index.error:
            return subprocess.CompletedProcess(command, 1, "", Index.error)
        folder = next(part.split("=")[1] for part in command if part.startswith("--dest="))
        (fetch.pathlib.Path(folder) / Index.wheel.name).write_bytes(Index.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    with zipfile.ZipFile(Index.wheel, "w") as archive:
        archive.writestr("pkg/data.txt", CONTENT)
    return Index


def test_fetched_once_then_cached(index):
    paths = [fetch.package_member("pkg==1.0", "pkg/data.txt", SHA256) for _ in range(2)]
    assert paths[0] == paths[1] and paths[0].read_bytes() == CONTENT and index.asked == 1


def test_a_cached_file_that_changed_is_fetched_again(index):
    path = fetch.package_member("pkg==1.0", "pkg/data.txt", SHA256)
    path.write_bytes(b"a corpu")
    assert fetch.package_member("pkg==1.0", "pkg/data.txt", SHA256).read_bytes() == CONTENT and index.asked == 2


def test_no_network_names_the_package(index):
    index.error = "WARNING: Retrying\nERROR: Could not find a version that satisfies the requirement pkg==1.0\n"
    with pytest.raises(UserError, match="pkg==1.0.*could not be fetched.*Could not find a version"):
        fetch.package_member("pkg==1.0", "pkg/data.txt", SHA256)


def test_a_damaged_download_is_refused_and_not_cached(index):
    index.wheel.write_bytes(index.wheel.read_bytes()[:40])
    with pytest.raises(UserError, match="damaged"):
        fetch.package_member("pkg==1.0", "pkg/data.txt", SHA256)
    with zipfile.ZipFile(index.wheel, "w") as archive:
        archive.writestr("pkg/data.txt", b"something else")
    with pytest.raises(UserError, match="SHA-256"):
        fetch.package_member("pkg==1.0", "pkg/data.txt", SHA256)
    assert not [path for path in fetch.cache_dir().rglob("*") if path.is_file()]


def test_a_missing_member_is_named(index):
    with pytest.raises(UserError, match="pkg/other.txt"):
        fetch.package_member("pkg==1.0", "pkg/other.txt", SHA256)
