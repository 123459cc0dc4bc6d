"""The most memory that a preparation takes, as its input is doubled and doubled again.

    python -m tests.curation.memory [--documents=16000]

English descriptions of Debian through all rules of configs/data/debian.py, in one process. Each doubling adds documents with the words of those before in reverse,
which no rule takes for a copy.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from research.curation.markup import DebianDescription
from research.data import debian

DOCUMENTS = flags.DEFINE_integer("documents", 16_000, "Of the smallest input.")


def main(argv):
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 2, 4):
            path = pathlib.Path(folder, f"{times}.jsonl")
            size = write(path, DOCUMENTS.value, times)
            seconds, own, resident = measured(path, pathlib.Path(folder, f"out{times}"))
            print(f"{DOCUMENTS.value * times:7,} documents, {size / 1e6:5.1f} MB: at most {own:,.0f} MB of memory, {resident:,.0f} with files, {seconds:.0f} s", flush=True)


def write(path: pathlib.Path, documents: int, times: int) -> int:
    with open(debian.fetch() / "debian-en.jsonl", encoding="utf-8") as lines, open(path, "w", encoding="utf-8") as file:
        for _, line in zip(range(documents * times // min(times, 2)), lines):
            document = DebianDescription()(json.loads(line))
            file.write(json.dumps(document) + "\n")
            if times > 1:
                backwards = "\n".join(" ".join(line.split()[::-1]) for line in document["text"].splitlines())
                file.write(json.dumps(document | {"key": f"{document['key']} backwards", "text": backwards}) + "\n")
    return path.stat().st_size


def measured(path: pathlib.Path, out: pathlib.Path) -> tuple[float, float, float]:
    """(seconds, MB of its own at most, MB resident at most: with pages of files, which it can give back) of the command, in a process of its own."""
    rules = "('fields','unicode','language','gopher_quality','gopher_repetition','pii','exact_duplicates','near_duplicates','repeated_passages')"
    command = [sys.executable, "-m", "research.prepare", "--config=configs/data/debian.py", f"--config.input.files={path}"]
    command += [f"--config.output.dir={out}", f"--config.rules={rules}", "--workers=1"]
    start, own = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        own = max(own, anonymous(process.pid))
        time.sleep(0.05)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, own / 1024, usage.ru_maxrss / 1024


def anonymous(process: int) -> int:
    """kB of the memory of a process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{process}/status").read_text())
    return int(found[1]) if found else 0


if __name__ == "__main__":
    app.run(main)
