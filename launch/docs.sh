#!/usr/bin/env bash
# Builds the documentation site into build/site; a broken link, a page outside the navigation or a name that the API page
# lacks is an error. It sets itself up in .venv-docs, apart from .venv: no page needs emokd installed.
# Arguments go to mkdocs build; with --serve the site is shown on http://127.0.0.1:8000 and follows what is edited.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

if ! .venv-docs/bin/python -m pip --version >/dev/null 2>&1; then
  "$(find_python)" -m venv .venv-docs
fi
if ! cmp --silent requirements-docs.lock .venv-docs/installed.lock; then
  echo "Installing requirements-docs.lock into .venv-docs."
  install_hashed .venv-docs/bin/python requirements-docs.lock
  cp requirements-docs.lock .venv-docs/installed.lock
fi
# Another project's notice about its own future; it is no finding about these pages.
export NO_MKDOCS_2_WARNING=1
if [[ ${1:-} == --serve ]]; then
  exec .venv-docs/bin/mkdocs serve --strict "${@:2}"
fi
exec .venv-docs/bin/mkdocs build --strict "$@"
