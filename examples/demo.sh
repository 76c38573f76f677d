#!/bin/bash
# A tour in real containers: create, use, limit, nest, kill the service under them, destroy. Needs root.
# It runs a service of its own, with its own directories and cgroups, and leaves nothing behind.
set -eu

. "$(dirname "$0")/demo-service.sh"

say "A container: its own processes, hostname, users, network and root filesystem."
try sysproc create --name web --memory 256M --pids 64
try sysproc exec web -- sh -c 'hostname; id; ps; ls /'

say "Input, output and exit codes pass through."
try sh -c 'echo hello | sysproc exec -i web -- tr a-z A-Z'
try sysproc exec web -- sh -c 'exit 7'

say "A container in the container: limits only shrink on the way down."
try sysproc create --name worker --parent web --memory 64M
try sysproc tree

say "The service is killed, and started again: the containers have not noticed."
try sysproc exec web -- sh -c 'sleep 1000 & echo started'
printf '%s$ kill -9 %s%s\n' "$bold" "(the service)" "$plain"
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
start_service
try sysproc ps web

say "Use once: create, run, destroy."
try sysproc run -- echo "I lived for one command"

say "Destroying takes the whole subtree."
try sysproc destroy web
try sysproc list
