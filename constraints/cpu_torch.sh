#!/usr/bin/env bash
# Usage: PYTHON=.venv/bin/python cpu_torch.sh 2.13.0+cpu INDEX
# Installs this build of torch from INDEX if pip cannot find it by itself. Does nothing if pip can, or has installed it
# already. Wheels that pip's configuration points to (find-links) are looked at first, which needs no network.
set -euo pipefail
version=$1 index=$2
pip=("${PYTHON:-python3}" -m pip)

finds() {
    "${pip[@]}" index versions torch "$@" 2>/dev/null | tr -c '0-9A-Za-z.+\n' '\n' | grep -qxF "$version"
}

if "${pip[@]}" list --format=freeze 2>/dev/null | grep -qxF "torch==$version" || finds --no-index || finds; then
    exit 0
fi
echo "pip does not find torch $version. Installing it from PyTorch's CPU index: $index"
"${pip[@]}" install -q --no-deps --index-url "$index" "torch==$version"
