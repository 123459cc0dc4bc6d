#!/usr/bin/env bash
# Runs a command in the project's own environment, which it makes on first use:
#
#     launch/local.sh python -m research.train --config=configs/quickstart.py --workdir=runs/quickstart
#     launch/local.sh pytest
#
# $PYTHON: the interpreter to use, else the newest of 3.11 to 3.13 that really runs. $VENV: where the environment lies, else .venv.
# $EXTRAS: which extras of pyproject.toml are installed, else test.
# Nothing is installed again until launch/constraints.txt or pyproject.toml changes.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
cd "$root"

[ $# -gt 0 ] || { echo "usage: launch/local.sh COMMAND [ARGUMENT...]" >&2; exit 2; }

runs() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

newest() {
  local candidate
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
    if runs "$candidate"; then command -v "$candidate"; return; fi
  done
  echo "error: ${PYTHON:-no interpreter found} does not run as Python 3.11, 3.12 or 3.13 with venv: install one, or name it in \$PYTHON." >&2
  return 1
}

stamp="${PYTHON:-} ${EXTRAS:=test} $(cat launch/constraints.txt pyproject.toml | cksum)"
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
  # Made anew if it was never finished, or if another interpreter is asked for.
  if ! [ -f "$venv/stamp" ] || [ "$(cut -d' ' -f1 "$venv/stamp")" != "${PYTHON:-}" ]; then
    python=$(newest)
    echo "making $venv with $("$python" --version), which takes some minutes the first time" >&2
    "$python" -m venv --clear "$venv"
  fi
  pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint launch/constraints.txt)
  "${pip[@]}" setuptools
  "${pip[@]}" --no-build-isolation --editable ".[$EXTRAS]"
  echo "$stamp" > "$venv/stamp"
fi

export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
exec "$@"
