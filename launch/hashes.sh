#!/usr/bin/env bash
# Writes the SHA-256 of every file that PyPI has of the releases in the lock files, for all platforms: run it after a lock has changed.
#   launch/hashes.sh
# torch is left out: where an index has a build of it without CUDA, pip takes that one, and PyPI's needs packages that the
# lock does not name. uv is installed into an environment of its own, which is removed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$(find_python)" -m venv "$work/uv"
"$work/uv/bin/python" -m pip install -q --disable-pip-version-check uv
for lock in requirements*.lock; do
  grep -vE '^(#|-r |torch==)' "$lock" >"$work/$lock"
  "$work/uv/bin/uv" pip compile --quiet --no-config --no-deps --no-header --no-annotate --generate-hashes \
    --python "$work/uv/bin/python" --output-file "$work/hashed" "$work/$lock"
  {
    echo "# The SHA-256 of all files of the releases in $lock; written by launch/hashes.sh."
    cat "$work/hashed"
  } >"launch/hashes/$lock"
  echo "launch/hashes/$lock: $(grep -c '==' "launch/hashes/$lock") releases, $(grep -c -- --hash "launch/hashes/$lock") files"
done
