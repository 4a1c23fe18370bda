#!/bin/sh
# The steps of the Containerfile, one at a time: install.sh dependencies|wheel|code|check PREFIX
# On a machine without a container engine `make container` runs all of them.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$2"
prefix=$(cd "$2" && pwd)

case $1 in
dependencies)
    python3 -m venv "$prefix"
    "$prefix/bin/python" - "$here/pyproject.toml" >"$prefix/requirements.txt" <<'END'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
print(*project["dependencies"], *project["optional-dependencies"]["device"], sep="\n")
END
    "$prefix/bin/pip" install --quiet --constraint "$here/constraints.txt" --requirement "$prefix/requirements.txt"
    ;;
wheel)
    "$prefix/bin/pip" wheel --quiet --no-deps --wheel-dir "$prefix/wheel" "$here"
    ;;
code)
    "$prefix/bin/pip" install --quiet --no-deps --no-index "$prefix"/wheel/*.whl
    ;;
check)
    # the installed package finds a ball in a scan; its device starts, and the health check passes
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    cd "$folder"
    "$prefix/bin/python" - <<'END'
import numpy as np
from focalis.volume import Grid, Volume, write_volume

away = np.hypot.reduce(np.indices((72, 72, 72)) - 35.5)
scan = np.where(away < 8, 20, -850) + np.random.default_rng(0).normal(0, 20, away.shape)
write_volume(Volume(scan.astype(np.int16), Grid(away.shape, (0.7, 0.7, 0.7))), "scan.nii.gz")
END
    "$prefix/bin/focalis" predict lidc-nodule scan.nii.gz -o masks
    "$prefix/bin/python" -c 'from focalis.volume import read_volume
assert (read_volume("masks/scan.nii.gz").array > 0).sum() > 500'
    log=$folder/log
    : >"$log"
    "$prefix/bin/focalis" serve lidc-nodule --folder "$folder/store" --port 0 --web-port 0 >"$log" 2>&1 &
    device=$!
    trap 'kill $device 2>/dev/null || true; wait $device 2>/dev/null || true; rm -rf "$folder"' EXIT
    for _ in $(seq 120); do
        grep -q ready "$log" && break
        kill -0 $device 2>/dev/null || { cat "$log"; exit 1; }
        sleep 1
    done
    page=$(sed -n 's/^web *//p' "$log")
    "$prefix/bin/python" "$here/container/health.py" "${page}healthz"
    ;;
*)
    echo "unknown step: $1" >&2
    exit 2
    ;;
esac
