"""Trains on Google Cloud TPU VMs, with nothing but `gcloud` here: creates them, sets them up, trains on all hosts, watches, and makes them anew when they are taken away.

    python -m launch.tpu_vm up --name=x --type=v5p-128 [--slices=2] [--spot | --reserved] --nfs=HOST:/EXPORT --config=configs/gpt/xl.py --workdir=/mnt/lodestar/xl

up is create, setup, run, watch and delete, which are commands too, as are logs and status; after create, --name is enough, since launches/NAME.json keeps the rest.
Each can be given again whatever has happened: it does what is not done. --type as Google names slices; of several, --slices. The request waits in the queue
(queued resources), or with --direct is made at once or refused. --zone, --project: else gcloud's own. What runs is the commit that is checked out, in the versions of
launch/constraints.txt. --nfs: a file system that all hosts see and that outlives them, mounted at --mount: where the run goes, if there are several hosts, or
they can be taken away. --keep: watch leaves the TPUs be at the end. --dry_run prints the commands.
"""

import json
import pathlib
import subprocess
import time

from absl import flags
from tqdm import tqdm

from launch import launcher, tpu_hosts, tpu_types
from launch.gcloud import Gcloud, Lost, Missing, Unreachable, poll
from research.core.errors import STOPPED, UserError, run_command
from research.core.files import write_atomically

COMING = {"CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "STATE_UNSPECIFIED", "STARTING", "REPAIRING", "RESTARTING"}
HERE, GOING = {"ACTIVE", "READY"}, {"DELETING", "SUSPENDING", "STOPPING", "HIDING"}  # all others are gone, or were never made
MADE = ("type", "slices", "spot", "reserved", "direct", "zone", "project", "network", "runtime")  # which stay as they are
KEPT = (*MADE, "nfs", "mount")


def main(argv):
    verb = argv[1] if len(argv) > 1 else ""
    if verb not in VERBS:
        raise UserError(f"say what to do, python -m launch.tpu_vm {'|'.join(VERBS)} --name=NAME.")
    values, passed, _ = launcher.arguments([argv[0], *argv[2:]], define)
    job = described(values, passed, verb)
    cloud = Gcloud(job["zone"], job["project"], values.dry_run)
    if verb in ("up", "create", "setup", "run"):
        if verb != "setup" and not (values.skip_preflight or values.dry_run) and job["train"]:
            launcher.check_fits_tpus(job["train"], job["type"], job["slices"])
        keep(values, job)
    try:
        VERBS[verb](cloud, job, values)
    except (Missing, Unreachable) as e:
        raise UserError(f"{values.name}: {e}") from e
    except KeyboardInterrupt:
        raise UserError(f"stopped watching; {values.name} is as it was. python -m launch.tpu_vm watch --name={values.name} goes on.") from None


def define(values):
    launcher.define_all(
        values,
        *launcher.SLICES,
        ("reserved", flags.DEFINE_bool, False, "From the project's reservation."),
        ("direct", flags.DEFINE_bool, False, "At once or not at all."),
        ("zone", flags.DEFINE_string, None, "Where; absent: gcloud's own."),
        ("project", flags.DEFINE_string, None, "Whose; absent: gcloud's own."),
        ("network", flags.DEFINE_string, None, "Of the machines; absent: default."),
        ("runtime", flags.DEFINE_string, None, "The system; absent: Google's for this type."),
        ("nfs", flags.DEFINE_string, None, "HOST:/EXPORT that all hosts mount."),
        ("mount", flags.DEFINE_string, "/mnt/lodestar", "Where they mount it."),
        ("keep", flags.DEFINE_bool, False, "Leave the TPUs be when the run has ended."),
        ("state", flags.DEFINE_string, "launches", "Where NAME.json goes."),
    )


def described(values, passed: list[str], verb: str) -> dict:
    """What is to be: the flags, or what NAME.json keeps of them. Raises UserError."""
    if values.name is None:
        values.name = launcher.name_of(launcher.given(passed, "workdir"))
    path = pathlib.Path(values.state) / f"{values.name}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    if values.type is None and not kept:
        raise UserError(f"say what to create, --type=v5p-128 for instance: there is no {path} that would know.")
    job = {name: values[name].value for name in KEPT} | {"train": passed, "running": [], "commit": None, "attempt": 0}
    if kept:
        given = {name: job[name] for name in KEPT if values[name].present}
        if differ := [name for name in MADE if name in given and given[name] != kept[name]]:
            raise UserError(
                f"--{differ[0]}={given[differ[0]]}: {values.name} was made with {kept[differ[0]]}. Delete it first, or take another --name."
            )
        job = kept | given | {"train": passed or kept["running"] or kept["train"]}
    tpu_types.named(job["type"])
    if verb in ("up", "run"):
        check_run(job)
    if (verb == "setup" or (verb == "up" and job["commit"] is None)) and not values.dry_run:
        job["commit"] = head()  # and no other, however often the TPUs are made anew
    return job


def check_run(job: dict):
    """Raises UserError for a run that could not be made or would be lost."""
    launcher.given(job["train"], "config")
    workdir = launcher.given(job["train"], "workdir")
    if not launcher.lasts(workdir, job["nfs"], job["mount"]) and (hosts(job) > 1 or job["spot"]):
        why = "can be taken away" if job["spot"] else "have several hosts"
        raise UserError(
            f"--workdir={workdir}: these TPUs {why}, and a run goes where all hosts see it and it outlives them: --nfs=HOST:/EXPORT and --workdir={job['mount']}/NAME."
        )


def hosts(job: dict) -> int:
    return tpu_types.named(job["type"]).hosts * job["slices"]


def head() -> str:
    """The commit that is checked out. Raises UserError where the files differ from it: what ran could not be told."""
    git = lambda *command: subprocess.run(["git", *command], capture_output=True, text=True, check=True).stdout.strip()
    try:
        if git("status", "--porcelain", "--untracked-files=no"):
            raise UserError("there are changes that are not committed: commit them, so that it can be told what ran.")
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError) as e:
        raise UserError("give this command in the git repository whose commit is to run.") from e


def keep(values, job: dict):
    if not values.dry_run:
        pathlib.Path(values.state).mkdir(parents=True, exist_ok=True)
        write_atomically(pathlib.Path(values.state) / f"{values.name}.json", json.dumps(job, indent=2) + "\n")


def preflight(values, passed: list[str]):
    launcher.check_fits_tpus(passed, values.type, values.slices)


def nodes(values, job: dict) -> list[str]:
    return [values.name] if job["slices"] == 1 else [f"{values.name}-{i}" for i in range(job["slices"])]


def state(cloud: Gcloud, job: dict, values) -> tuple[str | None, str]:
    """(state, what the cloud says of it); None where there is nothing. Of a queued resource that is active it is the state of the first of its nodes that is not."""
    if job["direct"]:
        found = cloud.described("tpu-vm", values.name)
        return (None, "") if found is None else (found["state"], found.get("healthDescription", ""))
    found = cloud.described("queued-resources", values.name)
    if found is None:
        return None, ""
    now, why = found["state"]["state"], found["state"].get("failedData", {}).get("error", {}).get("message", "")
    if now == "ACTIVE":
        for node in nodes(values, job):
            vm = cloud.described("tpu-vm", node)
            if vm is None or vm["state"] not in HERE:
                return ("PREEMPTED" if vm is None else vm["state"]), why
    return now, why


def create(cloud: Gcloud, job: dict, values):
    """Asks for the TPUs, if they are not there or on their way, and waits until they are. Raises UserError where they will not come, Lost where they may if asked again."""
    kind = tpu_types.named(job["type"])
    runtime = job["runtime"] or kind.family.runtime
    if runtime is None:
        raise UserError(f"{job['type']} cannot be had as a TPU VM: use launch.gke.")
    if job["direct"] and job["slices"] > 1:
        raise UserError("--direct makes one slice: leave it out for several.")
    options = [f"--{name}" for name in ("spot", "reserved") if job[name]] + ([f"--network={job['network']}"] if job["network"] else [])
    if job["direct"]:
        request = ["tpu-vm", "create", values.name, f"--accelerator-type={job['type']}", f"--version={runtime}"]
    else:
        names = [f"--node-id={values.name}"] if job["slices"] == 1 else [f"--node-count={job['slices']}", f"--node-prefix={values.name}"]
        request = ["queued-resources", "create", values.name, *names, f"--accelerator-type={job['type']}", f"--runtime-version={runtime}"]
    while (now := state(cloud, job, values)[0]) in GOING:
        time.sleep(poll())
    if now is not None and now not in HERE | COMING:
        delete(cloud, job, values, forget=False)
        now = None
    if now is None:
        cloud(*request, *options)
    if cloud.dry:
        return
    with tqdm(desc=f"{values.name}: {now or 'asked for'}", bar_format="{desc} [{elapsed}]") as bar:
        while (found := launcher.persistently(lambda: state(cloud, job, values)))[0] not in HERE:
            now, why = found
            if now not in COMING:
                raise (UserError if now == "FAILED" else Lost)(
                    f"{values.name} is {now or 'gone'}{': ' + why if why else ''}. The same command asks again."
                )
            bar.set_description_str(f"{values.name}: {now}")
            time.sleep(poll())
    print(f"{values.name} is there: {job['slices']} x {job['type']}, {hosts(job)} hosts.")


def setup(cloud: Gcloud, job: dict, values):
    tpu_hosts.setup(cloud, job, nodes(values, job))


def run(cloud: Gcloud, job: dict, values):
    """Raises UserError where nothing is to be run, or another run is going on."""
    if not job["train"]:
        raise UserError(f"nothing has been started on {values.name}: say what, --config=configs/NAME.py --workdir={job['mount']}/NAME.")
    tpu_hosts.run(cloud, job, nodes(values, job), hosts(job) > 1)
    job["running"] = job["train"]
    keep(values, job)


def watch(cloud: Gcloud, job: dict, values):
    """Until the run has ended. TPUs taken away are made anew; a run that was stopped, or whose host was booted, is started again from its last checkpoint."""
    missed, _ = 0, state(cloud, job, values)  # what is wrong from the beginning is said at once
    while not cloud.dry:
        now, _ = launcher.persistently(lambda: state(cloud, job, values))
        try:
            code = tpu_hosts.seen(cloud, nodes(values, job)[0]) if now in HERE else None
            missed = 0
        except (Missing, Unreachable):
            code, missed = "alive", missed + 1  # taken away perhaps: the next state will tell
            if missed > 10:
                raise UserError(f"{values.name} is {now}, but its first worker has not answered {missed} times: look, then watch again.") from None
        if code == "0":
            print(f"training on {values.name} has ended.")
            return
        if code in ("gone", str(STOPPED)):
            bring(cloud, job, values)
        elif code not in (None, "alive"):
            last = cloud.ssh(nodes(values, job)[0], "0", "tail -n 1 lodestar/log.txt").strip().rstrip(".")
            stay = f"The TPUs are still there: python -m launch.tpu_vm delete --name={values.name}."
            raise UserError(f"training on {values.name} ended with {code}: {last}. {stay}")
        elif code is None and now not in COMING | GOING:
            print(f"{values.name} is {now or 'gone'}.")
            job["attempt"] += 1
            bring(cloud, job, values)
        time.sleep(poll())


def bring(cloud: Gcloud, job: dict, values):
    """create, setup and run; anew where the TPUs are taken away meanwhile. Raises Lost where they are there and do not answer."""
    while True:
        try:
            for step in (create, setup, run):
                step(cloud, job, values)
            return
        except Lost as e:
            if launcher.persistently(lambda: state(cloud, job, values))[0] in HERE:
                raise
            print(e)
            job["attempt"] += 1
            time.sleep(poll())


def logs(cloud: Gcloud, job: dict, values):
    cloud.ssh(nodes(values, job)[0], "0", "tail -n +1 -F lodestar/log.txt", stream=True)


def status(cloud: Gcloud, job: dict, values):
    now, why = state(cloud, job, values)
    print(f"{values.name}: {job['slices']} x {job['type']}, {now or 'not there'}{': ' + why if why else ''}, {job['attempt']} times made anew.")


def delete(cloud: Gcloud, job: dict, values, forget: bool = True):
    """Also what is half made; what is not there is deleted already."""
    kind = ["tpu-vm", "delete", values.name] if job["direct"] else ["queued-resources", "delete", values.name, "--force"]
    try:
        cloud(*kind, "--quiet")
    except Missing:
        pass
    if forget and not cloud.dry:
        (pathlib.Path(values.state) / f"{values.name}.json").unlink(missing_ok=True)
        print(f"{values.name} is deleted.")


def up(cloud: Gcloud, job: dict, values):
    bring(cloud, job, values)
    watch(cloud, job, values)
    if not values.keep:
        delete(cloud, job, values)


VERBS = {"up": up, "create": create, "setup": setup, "run": run, "watch": watch, "logs": logs, "status": status, "delete": delete}


if __name__ == "__main__":
    run_command(main)
