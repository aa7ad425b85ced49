# shellcheck shell=bash
# Sourced by the scripts beside it, in the checkout's root: makes .venv and installs into it what a lock file names.

fail() {
  echo "${0##*/}: $*" >&2
  exit 2
}

supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if supported "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "emokd needs Python 3.11, 3.12 or 3.13, and none was found on PATH. Install one, then run this script again."
}

# install_hashed PYTHON LOCK...: installs what the lock files name, each release by the hashes that launch/hashes has of
# it; then what the last file names and they do not (torch, see launch/hashes.sh).
install_hashed() {
  local python=$1 lock files=()
  shift
  for lock in "$@"; do
    files+=(-r "launch/hashes/$lock")
  done
  "$python" -m pip install -q --disable-pip-version-check --require-hashes --no-deps "${files[@]}" || return
  "$python" -m pip install -q --disable-pip-version-check -r "$lock"
}

# install_locked LOCK...: installs what the files name and the package, unless all of them are as they were the last time.
install_locked() {
  local python=.venv/bin/python stamp=".venv/installed-${!#}" key
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    local base
    base=$(find_python)
    echo "Making .venv with $("$base" --version)."
    "$base" -m venv .venv
  fi
  supported "$python" || fail ".venv has $("$python" --version), but emokd needs 3.11 to 3.13. Move .venv away and run this script again."
  key=$(cat "$@" | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
  if [[ -f $stamp && $(<"$stamp") == "$key" ]]; then
    return
  fi
  echo "Installing ${!#} into .venv; the first time takes some minutes."
  install_hashed "$python" "$@"
  "$python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
  echo "$key" >"$stamp"
}

# The interpreter that starts a run on machines that are set up already: EMOKD_PYTHON, or .venv's.
installed_python() {
  local python=${EMOKD_PYTHON:-.venv/bin/python}
  command -v "$python" >/dev/null || fail "there is no $python. Make .venv as docs/scaling.md says, or set EMOKD_PYTHON."
  echo "$python"
}

# quoted WORD...: a command as a shell reads it back.
quoted() {
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

# positive NAME VALUE: refuses what is no whole number of 1 or more.
positive() {
  [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 is '$2'; give a whole number of 1 or more."
}
