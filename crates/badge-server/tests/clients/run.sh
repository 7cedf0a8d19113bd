#!/usr/bin/env bash
# The server as its users' clients see it: huggingface_hub and tritonclient, in an environment of
# their own. Arguments go to check.py. Where there is no Python or no package index the exit code
# is 77.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

missing() {
    echo "$1; the clients are not tried" >&2
    exit 77
}

command -v python3 >/dev/null || missing "there is no python3 here"
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
python3 -m venv "$environment" >/dev/null 2>&1 || missing "python3 has no venv here"
timeout 300 "$environment/bin/pip" install --quiet --disable-pip-version-check \
    -r "$here/requirements.txt" >/dev/null 2>&1 || missing "the clients cannot be installed here"
"$environment/bin/python" "$here/check.py" "$@"
