"""launch/local.sh with stand-ins for the interpreters, which write down what is asked of them."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# Runs as a Python should; `-m venv DIR` puts itself there.
WORKS = """#!/bin/bash
echo "$(basename "$0") $*" >> "$LOG"
case "$*" in
  *"-m venv"*) mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python" ;;
  --version) echo Python 3.12.9 ;;
esac
"""
FAILS = "#!/bin/bash\nexit 127\n"  # as a shim does for a version that is not there


@pytest.fixture
def project(tmp_path):
    for name in ("launch", "bin"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "launch/local.sh", tmp_path / "launch")
    (tmp_path / "launch/constraints.txt").write_text("a==1\n")
    (tmp_path / "pyproject.toml").write_text("")
    for name, text in {"python3.13": FAILS, "python3.12": WORKS, "python3.11": WORKS, "python3": WORKS, "python": WORKS}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def run(project, *command, **environment):
    env = {"PATH": f"{project}/bin:{os.environ['PATH']}", "HOME": str(project), "LOG": str(project / "log")} | environment
    return subprocess.run([project / "launch/local.sh", *command], env=env, capture_output=True, text=True)


def log(project):
    return (project / "log").read_text().splitlines() if (project / "log").exists() else []


def test_makes_the_environment_once_with_the_newest_python_that_runs(project):
    first = run(project, "echo", "hello there")
    assert first.returncode == 0 and first.stdout == "hello there\n" and "Python 3.12.9" in first.stderr
    assert [line for line in log(project) if "venv" in line] == [f"python3.12 -c {CHECK}", f"python3.12 -m venv --clear {project}/.venv"]
    installs = [line for line in log(project) if "pip install" in line]
    assert len(installs) == 2 and all("--constraint launch/constraints.txt" in line for line in installs) and ".[test]" in installs[1]
    (project / "log").unlink()
    assert run(project, "true").returncode == 0 and log(project) == []


CHECK = "import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"


@pytest.mark.parametrize("changed", ["launch/constraints.txt", "pyproject.toml"])
def test_installs_again_when_what_it_installs_has_changed(project, changed):
    run(project, "true")
    (project / "log").unlink()
    (project / changed).write_text("b==2\n")
    run(project, "true")
    assert [line.split()[0:3] for line in log(project)] == [["python", "-m", "pip"]] * 2, "the environment itself is kept"


def test_an_interpreter_can_be_named(project):
    assert run(project, "true", PYTHON="python3.11").returncode == 0
    assert any(line.startswith("python3.11 -m venv") for line in log(project))


def test_another_interpreter_makes_another_environment(project):
    run(project, "true")
    run(project, "true", PYTHON="python3.11")
    assert [line.split()[0] for line in log(project) if "-m venv" in line] == ["python3.12", "python3.11"]


def test_one_that_does_not_run_is_refused_in_one_line(project):
    refused = run(project, "true", PYTHON="python3.13")
    assert refused.returncode != 0 and refused.stderr.startswith("error: python3.13 does not run") and refused.stderr.count("\n") == 1


def test_the_command_s_exit_code_and_environment_are_kept(project):
    assert run(project, "bash", "-c", "exit 7").returncode == 7
    assert run(project, "bash", "-c", "command -v python").stdout.strip() == f"{project}/.venv/bin/python"
    assert run(project).returncode == 2


def test_the_constraints_pin_everything_and_name_no_address():
    lines = [line for line in (ROOT / "launch/constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 60 and all(line.split(" ;")[0].count("==") == 1 for line in lines) and not any("/" in line for line in lines)
