#!/bin/sh
# Prints the path of a tar: a Debian 12 root with python3, our SDK and the `sysproc` command, to be imported by
# `sysproc image import`. Made the first time, in about a minute; needs root and mmdebstrap.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH" exec python -m tests.debian.root
