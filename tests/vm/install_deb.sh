# Runs inside the virtual machine, as root: installs the package that lies beside it with Debian's own tools, uses it,
# upgrades it while a container runs, removes it and purges it. The first step that fails ends it.
set -eux
cd "$(dirname "$0")"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
mkdir -p results
# The disk is a snapshot that nobody keeps: dpkg need not wait for it.
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/unsafe-io
# The image was made without man pages and documents, and dpkg would leave out ours as well.
grep --files-with-matches --recursive path-exclude /etc/dpkg/dpkg.cfg.d | xargs --no-run-if-empty rm
finish() {
    status=$?
    set +e
    if [ $status -ne 0 ]; then journalctl --no-pager --unit=sysprocd | tail -n 40; fi
    { uname --kernel-release; stat --file-system --format=%T /sys/fs/cgroup; cat /proc/1/comm; } >results/facts
    echo $status >results/status
    tar --create --file=/dev/vdc --directory=results .
}
trap finish EXIT

main_pid() { systemctl show --property=MainPID --value sysprocd; }
capabilities() { awk '/^CapBnd/ { print $2 }' "/proc/$1/status"; }
# The command that runs in the container; its pid as the host sees it.
work_pid() { pgrep --full --exact 'sleep 31415'; }

: ──── a first installation starts the service
dpkg --install sysproc.deb
systemctl is-active sysprocd
systemctl is-enabled sysprocd
sysprocd --version
sysproc version
test "$(stat --format=%a:%U:%G /run/sysproc/sysproc.sock)" = 660:root:sysproc
test "$(stat --format=%a:%U:%G /var/lib/sysproc)" = 700:root:root
for path in share/man/man1/sysproc.1.gz share/man/man1/sysproc-volume-create.1.gz share/man/man8/sysprocd.8.gz \
            share/bash-completion/completions/sysproc share/zsh/vendor-completions/_sysproc \
            share/fish/vendor_completions.d/sysproc.fish lib/sysusers.d/sysproc.conf lib/tmpfiles.d/sysproc.conf \
            share/doc/sysproc/docs/OPERATING.md.gz share/doc/sysproc/docs/benchmarks.svg \
            share/doc/sysproc/docs/demo.svg; do
    test -s "/usr/$path"
done

: ──── containers and volumes work under the shipped unit
web=$(sysproc create --name web --memory 64M)
test "$(echo hello | sysproc exec -i web -- tr a-z A-Z)" = HELLO
sysproc volume create data --size 64M --owner web
sysproc mount web data /srv/data
sysproc exec web -- sh -c 'echo kept >/srv/data/file; (sleep 31415 >/dev/null 2>&1 &)'
work=$(work_pid)
: ──── and encrypted ones, by the kernel
echo 'correct horse' >secret
sysproc volume create safe --size 48M --owner web --encrypt fs --passphrase-file secret
sysproc mount web safe /srv/safe --passphrase-file secret
sysproc exec web -- sh -c 'echo kept >/srv/safe/file'
grep ' /srv/safe ' "/proc/$work/mounts" | grep '^/dev/dm-'
sysproc volume lock safe --owner web --force
until test ! -e /sys/block/dm-0; do sleep 0.2; done
echo wrong >other
if sysproc mount web safe /srv/safe --passphrase-file other; then exit 1; fi
sysproc mount web safe /srv/safe --passphrase-file secret
test "$(sysproc exec web -- cat /srv/safe/file)" = kept

: ──── who is of the group may call, and the service has less than the host
useradd --groups sysproc alice
test "$(runuser --user alice -- sysproc list -o name)" = "$web"
# What the unit takes from the host's part is all there in the container's own user namespace.
test "$(sysproc exec web -- awk '/^CapEff/ { print $2 }' /proc/self/status)" = "$(capabilities self)"
test "$(capabilities "$(main_pid)")" != "$(capabilities self)"

: ──── an upgrade replaces the daemon, and nothing else
before=$(main_pid)
dpkg --install sysproc.deb
systemctl is-active sysprocd
test "$(main_pid)" != "$before"
test "$(work_pid)" = "$work"
test "$(sysproc exec web -- cat /srv/data/file /srv/safe/file)" = "kept
kept"

: ──── who removes it while a container runs gets back to it
dpkg --remove sysproc 2>&1 | tee removed
grep 'containers are running' removed
test "$(work_pid)" = "$work"
test ! -e /usr/lib/sysproc
dpkg --purge sysproc
test -d /var/lib/sysproc
dpkg --install sysproc.deb
test "$(work_pid)" = "$work"
test "$(sysproc exec web -- cat /srv/data/file)" = kept

: ──── purged without containers, nothing is left
sysproc destroy web
test -z "$(work_pid || true)"
apt-get purge --yes sysproc
for path in /var/lib/sysproc /run/sysproc /run/sysproc-uids /etc/sysproc /usr/lib/sysproc /usr/bin/sysproc \
            /lib/systemd/system/sysprocd.service /etc/systemd/system/multi-user.target.wants/sysprocd.service; do
    test ! -e "$path" -a ! -L "$path"
done
test -z "$(find /sys/fs/cgroup -maxdepth 1 -name 'sysproc*')"
until test -z "$(find /sys/block -name 'dm-*')"; do sleep 0.2; done
