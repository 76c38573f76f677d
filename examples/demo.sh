#!/bin/bash
# A tour in real containers: create, use, limit, nest, try the walls, encrypt, kill the service under them, destroy.
# Needs root. It runs a service of its own, with its own directories and cgroups, and leaves nothing behind.
# DEMO_PAUSE=1 makes it wait a second after each command, for who reads along.
set -eu

. "$(dirname "$0")/demo-service.sh"
cd "$here"

say "A container: its own processes, users, network and root filesystem."
try 'time sysproc create --name web --memory 256M --pids 64'
try 'sysproc exec web -- sh -c "hostname; id; ps; ls /sys/class/net"'

say "Input, output and exit codes pass through."
try 'echo hello | sysproc exec -i web -- tr a-z A-Z'
try 'sysproc exec web -- sh -c "exit 7"'

say "A container in the container: limits only shrink on the way down."
try 'sysproc create --parent web --name worker --memory 64M'
try 'sysproc create --parent web --name greedy --memory 1G'
try 'sysproc tree'

say "The walls: root inside, and nobody outside."
try 'sysproc exec web/worker -- mknod /tmp/disk b 259 0'
try 'sysproc exec web/worker -- dmesg'
try 'sysproc exec web/worker -- tail /dev/zero  # more memory than it may have'

say "An encrypted volume: LUKS2, locked with its last mount."
try 'echo "a passphrase" > secret'
try 'sysproc volume create safe --size 64M --owner web --encrypt fs --passphrase-file secret'
try 'sysproc mount web safe /srv --passphrase-file secret'
try 'sysproc exec web -- sh -c "echo kept > /srv/file; df -h /srv | tail -1"'
try 'sysproc umount web /srv'

say "The service is killed, and started again: the containers have not noticed."
try 'sysproc exec web -- sh -c "sleep 1000 & echo started"'
try 'kill -9 $daemon'
gone "$daemon"
start_service
try 'sysproc ps web'

say "Destroying takes the whole subtree, its volumes and all that ran in it."
try 'time sysproc destroy web'
try 'sysproc list'
