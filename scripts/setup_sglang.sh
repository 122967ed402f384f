#!/bin/sh
# Makes the environment that SGLang lives in, once:  sh scripts/setup_sglang.sh .venv-sglang
# It is apart from .venv because SGLang pins other versions of torch where there is a GPU. Two runs do not collide.
set -eu
cd "$(dirname "$0")/.."
venv=$1 python=${PYTHON:-python3} sglang=sglang==0.5.23

# The marker is written last and says what it was made from: an interrupted or outdated installation starts again.
state=$(cat requirements-sglang.txt scripts/setup_sglang.sh | cksum)
[ "$(cat "$venv/.ready" 2>/dev/null || true)" = "$state" ] && exit 0

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "SGLang needs Python 3.11 or newer and $python is $("$python" -V 2>&1); name another with PYTHON=python3.12." >&2
    exit 2
}
free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1000000) }')
pip="$venv/bin/python -m pip install --disable-pip-version-check --quiet"
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then need=15 cuda=1; else need=4 cuda=; fi
[ "$free" -ge "$need" ] || {
    echo "SGLang needs $need GB on this disk and $free GB are free; make room and start again." >&2
    exit 2
}
"$python" -m venv "$venv" || {
    echo "Python cannot make a virtual environment here; on Debian or Ubuntu run: apt-get install python3-venv" >&2
    exit 2
}
echo "Setting up $venv for SGLang (a few minutes the first time) …"
if [ "$cuda" ]; then
    $pip "$sglang"
    $pip $(grep -E '^(av|opencv-python-headless)==' requirements-sglang.txt)
    # The vision tower attends with it where it can be compiled; without it through PyTorch's own attention.
    $pip --no-build-isolation -r requirements-gpu.txt ||
        echo "flash-attn could not be compiled here; the vision tower uses PyTorch's own attention." >&2
else
    $pip "$(grep '^torch==' requirements-sglang.txt)" --extra-index-url https://download.pytorch.org/whl/cpu 2>/dev/null || true
    $pip -r requirements-sglang.txt
    $pip --no-deps "$sglang" torchvision==0.28.0 decord2==3.4.0
fi
echo "$state" >"$venv/.ready"
