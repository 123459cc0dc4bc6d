"""Cloud TPUs through the `gcloud` command: what each call asks, and what its answers mean."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import time

from research.core.errors import UserError


class Missing(Exception):
    """There is no such thing there."""


class Lost(UserError):
    """Machines that were taken away, or do not answer, before they were ready: asking again may help."""


class Unreachable(Exception):
    """A machine that does not let us in, or did for a while: it may have been taken away."""


@dataclasses.dataclass
class Gcloud:
    """zone, project: None for gcloud's own setting. dry: print each command in place of running it."""

    zone: str | None = None
    project: str | None = None
    dry: bool = False

    def __call__(self, *arguments: str, stream: bool = False) -> str:
        """What `gcloud compute tpus ...` prints; `stream`: to our own output, as it comes. Raises Missing, Unreachable, or UserError with gcloud's own words."""
        place = [f"--{name}={value}" for name, value in (("zone", self.zone), ("project", self.project)) if value]
        command = ["gcloud", *(["alpha"] if arguments[0] == "queued-resources" else []), "compute", "tpus", *arguments, *place]
        if self.dry:
            print(shlex.join(command))
            return ""
        if shutil.which("gcloud") is None:
            raise UserError("there is no gcloud here: install the Google Cloud CLI, and give `gcloud auth login` once.")
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=None if stream else subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise self._meaning(arguments, done.returncode, done.stderr)
        return done.stdout or ""

    @staticmethod
    def _meaning(arguments, code: int, said: str) -> Exception:
        last = next((line for line in reversed(said.splitlines()) if line.startswith("ERROR:")), said.strip()[-300:])
        last = re.sub(r"^ERROR: (\([\w.-]+\) )?", "", last.strip())
        if "NOT_FOUND" in last or "was not found" in last:
            return Missing(last)
        if "ssh" in arguments or "scp" in arguments:
            if code == 255 or re.search(r"Connection (refused|timed out|closed)|exited with return code \[255\]", said):
                return Unreachable(last)
            told = [line for line in said.splitlines() if line.strip() and not line.startswith("ERROR:")]  # by the command there
            return UserError(told[-1] if told else last)
        if re.search(r"quota", said, re.IGNORECASE):
            return UserError(f"gcloud: {last} Ask for more quota, or try --spot, a smaller --type or another --zone.")
        if re.search(r"no more capacity|RESOURCE_EXHAUSTED|stockout", said, re.IGNORECASE):
            return UserError(f"gcloud: {last} Leave --direct out, so that the request waits in the queue, or try another --zone.")
        return UserError(f"gcloud: {last}")

    def described(self, kind: str, name: str) -> dict | None:
        """kind: queued-resources or tpu-vm. None where it is not there."""
        try:
            return json.loads(self(kind, "describe", name, "--format=json") or "null")
        except Missing:
            return None

    def ssh(self, node: str, worker: str, command: str, stream: bool = False) -> str:
        return self("tpu-vm", "ssh", node, f"--worker={worker}", f"--command={command}", stream=stream)

    def copy(self, file: str, node: str, to: str):
        self("tpu-vm", "scp", file, f"{node}:{to}", "--worker=all")


def poll() -> float:
    """Seconds between two looks at what is there."""
    return float(os.environ.get("TPU_POLL_SECONDS", 30))


def patiently(what, seconds: list[float]):
    """what(), again after so many seconds each while machines cannot be reached. Raises Lost when patience ends, or where there are none."""
    for wait in [*seconds, None]:
        try:
            return what()
        except Missing as e:
            raise Lost(f"{e} The same command asks again.") from e
        except Unreachable as e:
            if wait is None:
                raise Lost(
                    f"a worker cannot be reached: {e} Is your SSH key known to the project, and port 22 open? The same command goes on."
                ) from e
            time.sleep(wait)
