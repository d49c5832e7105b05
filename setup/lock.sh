#!/bin/sh
# Pins everything that pyproject.toml asks for, and the build backend, in requirements.lock. No name of a registry's host
# gets into it. Run it with the oldest Python that is supported: newer ones need nothing more.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'making requirements.lock (about three minutes)'
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet 'pip-tools>=7.5'
# pip-compile reads the project's own dependencies; the group `dev` and what the build needs are handed to it.
"$work/venv/bin/python" - >"$work/dev.in" <<'PY'
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
print(*project["dependency-groups"]["dev"], *project["build-system"]["requires"], "editables", sep="\n")
PY
"$work/venv/bin/pip-compile" --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file "$work/lock" pyproject.toml "$work/dev.in"
{
    echo '# Every package that privnet, its tests and its build need, with the only contents that are accepted.'
    echo '# Made by `make lock` from pyproject.toml; setup/setup.sh installs exactly this.'
    cat "$work/lock"
} >requirements.lock
echo "requirements.lock has $(grep -c == requirements.lock) packages; make setup installs them"
