#!/usr/bin/env bash
# Everything that must pass before a commit: ruff, mypy, shellcheck, pytest. Arguments go to pytest, for example -m slow.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

install_locked requirements.lock requirements-test.lock
.venv/bin/ruff check
.venv/bin/ruff format --check
.venv/bin/mypy
.venv/bin/shellcheck --external-sources launch/*.sh launch/*.sbatch .ci/run
.venv/bin/python -m pytest -n 2 --dist loadfile "$@"
