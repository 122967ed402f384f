#!/bin/sh
# Makes a virtual environment and installs the pinned requirements:  sh scripts/setup.sh .venv requirements.txt
set -eu
venv=$1 requirements=$2 python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Keye Studio needs Python 3.11 or newer and $python is $("$python" -V 2>&1); name another with PYTHON=python3.12." >&2
    exit 2
}
"$python" -m venv "$venv" || {
    echo "Python cannot make a virtual environment here; on Debian or Ubuntu run: apt-get install python3-venv" >&2
    exit 2
}
pip="$venv/bin/python -m pip install --disable-pip-version-check --quiet"
echo "Setting up $venv (a few minutes the first time) …"

# Without an NVIDIA driver the CUDA build of torch is several useless gigabytes: the processor build comes first,
# from the wheels at hand or PyTorch's own index. Where neither is reachable PyPI's build serves as well.
torch=$(grep '^torch==' "$requirements")
if ! command -v nvidia-smi >/dev/null 2>&1; then
    $pip "$torch" --extra-index-url https://download.pytorch.org/whl/cpu 2>/dev/null || true
fi
$pip -r "$requirements"
