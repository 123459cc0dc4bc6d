#!/usr/bin/env python3
"""Stands in for `gcloud compute tpus`: answers from a script, keeps all calls, and runs what is sent by ssh in a home of its own on this machine.

$STAND_IN is a directory. script.json: {"lives": [[STATE, ...], ...], "refuse": N, "create_error": TEXT, "vanish": {LIFE: N}, "outages": N}. Each time the TPUs are
created they live the next life: a state for each time that they are described, the last one for good; [STATE, PATH] stays until there is a file PATH. STOP is ACTIVE,
where the trainer has been told to stop; REPAIRING kills what runs and keeps the disk. The first N calls by ssh or scp are refused; LIFE ends after N of them; N times a
state cannot be told. What is kept: calls.jsonl, memory.json, and home/, which is wiped, and its processes killed, when the TPUs are taken away.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

HERE = pathlib.Path(os.environ["STAND_IN"])
script = json.loads((HERE / "script.json").read_text())
memory = json.loads((HERE / "memory.json").read_text()) if (HERE / "memory.json").exists() else {"made": 0, "there": False, "age": 0, "refused": 0}
arguments = [arg for arg in sys.argv[1:] if arg != "alpha"]
group, kind, verb, name, *options = arguments[0:1] + arguments[2:5] + arguments[5:]
flags = dict(arg.removeprefix("--").split("=", 1) for arg in arguments if arg.startswith("--") and "=" in arg)
home = HERE / "home"


def fail(said: str, code: int = 1):
    print(f"ERROR: (gcloud.{kind}.{verb}) {said}", file=sys.stderr)
    leave(code)


def leave(code: int = 0):
    (HERE / "memory.json").write_text(json.dumps(memory))
    sys.exit(code)


def kill():
    if (home / "lodestar/pid").exists():
        try:
            os.killpg(int((home / "lodestar/pid").read_text()), signal.SIGKILL)
        except ProcessLookupError:
            pass


def take_away():
    kill()
    shutil.rmtree(home, ignore_errors=True)


def state() -> str:
    """Of this life, one step older."""
    life = script["lives"][min(memory["made"], len(script["lives"])) - 1]
    now = life[min(memory["age"], len(life) - 1)]
    if isinstance(now, list):
        now, waits_for = now
        memory["age"] += pathlib.Path(waits_for).exists()
    else:
        memory["age"] += 1
    if now in ("SUSPENDED", "PREEMPTED"):
        take_away()
    if now == "REPAIRING":
        kill()
    if now == "STOP":
        subprocess.run(["pkill", "-TERM", "-P", (home / "lodestar/pid").read_text().strip()], check=True)
        return "ACTIVE"
    return now


with open(HERE / "calls.jsonl", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\n")
if verb == "create":
    if "create_error" in script:
        fail(script["create_error"])
    if memory["there"]:
        fail(f"ALREADY_EXISTS: {name}")
    memory |= {"made": memory["made"] + 1, "there": True, "age": 0, "calls": 0}
    home.mkdir()
elif verb == "describe" and memory.get("outages", 0) < script.get("outages", 0):
    memory["outages"] = memory.get("outages", 0) + 1
    fail("UNAVAILABLE: 503 Service Unavailable")
elif not memory["there"]:
    fail(f"NOT_FOUND: Resource '{name}' was not found")
elif verb == "describe" and kind == "queued-resources":
    now = state()
    error = {"failedData": {"error": {"code": 8, "message": "the reservation has no room"}}} if now == "FAILED" else {}
    print(json.dumps({"name": name, "state": {"state": now} | error}))
elif verb == "describe":
    print(json.dumps({"name": name, "state": state() if script.get("direct") else "READY"}))
elif verb == "delete":
    take_away()
    memory["there"] = False
elif memory["refused"] < script.get("refuse", 0):
    memory["refused"] += 1
    print("ssh: connect to host 10.0.0.3 port 22: Connection refused", file=sys.stderr)
    fail("[/usr/bin/ssh] exited with return code [255].")
elif script.get("vanish", {}).get(str(memory["made"])) == memory["calls"]:
    take_away()
    memory["there"] = False
    fail(f"NOT_FOUND: Resource '{name}' was not found")
elif verb == "scp":
    memory["calls"] += 1
    shutil.copy(name, home / options[0].split(":")[1])
elif verb == "ssh":
    memory["calls"] += 1
    command = flags["command"].replace("launch/local.sh", str(HERE / "bin/local.sh"))
    leave(subprocess.run(["bash", "-c", command], cwd=home, env=os.environ | {"HOME": str(home)}).returncode)
leave()
