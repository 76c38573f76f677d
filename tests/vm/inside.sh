#!/bin/sh
# Runs inside the virtual machine, as a service of its systemd: the tests that the arguments name, then the results
# onto the third disk. The tree is beside it, unpacked from the second disk.
cd "$(dirname "$0")/../.."
export SYSPROC_TEST_IN_VM=1 NO_COLOR=1
reports=.cache/junit
mkdir -p $reports
if [ -b /dev/vdd ]; then export SYSPROC_TEST_DEBIAN_ROOT=/dev/vdd; fi
{
    uname --kernel-release
    stat --file-system --format=%T /sys/fs/cgroup
    cat /proc/1/comm
} >$reports/facts
echo "kernel $(uname --kernel-release), up for $(cut --delimiter=' ' --fields=1 /proc/uptime) s"
python -m tests "$@"
echo $? >$reports/status
exec tar --create --file=/dev/vdc --directory=$reports .
