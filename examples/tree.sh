#!/bin/bash
# A program inside a container makes containers of its own, limits them, uses them, reaches for what is not its own, and
# goes with its whole tree. The program is examples/inside.py; the container is a Debian with python3 and our SDK, made
# once (about a minute). Needs root.
set -eu

. "$(dirname "$0")/demo-service.sh"

say "A Debian root with python3 and the SDK."
try "sysproc image import debian $("$(dirname "$0")/debian-root.sh")"

say "A family: an uncle, and a team that may have four containers below it, and 256 MiB for all together."
try 'sysproc create --name uncle'
try 'sysproc create --name team --image debian --memory 256M --descendants 4'
uncle=$(sysproc inspect uncle -o json | grep -m1 '"id"' | cut -d'"' -f4)

say "The team's own program, run inside, calls the same API; who it is, the kernel says."
sysproc exec -i team -- sh -c 'cat > /root/inside.py' <"$(dirname "$0")/inside.py"
try "sysproc exec team -- python3 /root/inside.py $uncle"

say "The host sees what it has made."
try 'sysproc tree'

say "The team goes, and everything that it made goes with it. The uncle has not noticed."
try 'sysproc destroy team'
try 'sysproc tree'
