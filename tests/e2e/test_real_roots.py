"""A real Debian as root: imported in every form, and used as people use it, packages and services included.

Each test has a container of its own. What archives may hold is in `tests.e2e.test_images`, metadata of files in
`tests.e2e.test_image_metadata`, what root may do with the kernel in `tests.isolation`. Nothing is asked of a mirror.
"""

import asyncio
import hashlib
import io
import subprocess
import tarfile
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pytest

from sysproc_client import Client, Container
from sysproc_client.aio import AsyncClient
from tests.debian import debootstrap_tree
from tests.debian.plain_root import PACKERS, debs, plain_root, why_not
from tests.e2e.daemon import RunningDaemon

pytestmark = pytest.mark.timeout(600)  # the first time it is bootstrapped
PATIENCE_S = 120
AT_ONCE = 200


@pytest.fixture(scope="module")
def debian(daemon: RunningDaemon) -> str:
    """The image, of the tar as mmdebstrap has written it."""
    if reason := why_not():
        pytest.skip(reason)
    with Client(daemon.endpoint) as client:
        imported = client.images.import_("debian", plain_root())
        assert not imported.image.skipped_attributes
        client.create(image="debian").destroy()
    return "debian"


@pytest.fixture
def box(client: Client, debian: str) -> Container:
    """A container of it."""
    return client.create(image=debian, name="debian")


def output(box: Container, script: str, *, input: bytes = b"") -> str:
    """What a script for sh prints."""
    result = box.run(["sh", "-euc", script], input=input, timeout=PATIENCE_S)
    assert result.exit_code == 0, result
    return result.stdout.decode().strip()


# -- forms

# Everything that tar knows of a file, and its contents; not what a start makes or mounts.
FILES = r"""
find / -xdev \( -path /dev -o -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /lost+found \) -prune \
    -o ! -path / ! -path /etc ! -path /etc/hosts ! -path /etc/hostname ! -path /etc/resolv.conf \
    -printf '%p %y %m %U %G %n %l ' \( -type d -printf '\n' -o -printf '%s %T@\n' \) | sort
find / -xdev -type f ! -path '/etc/host*' ! -path /etc/resolv.conf ! -path '/tmp/*' -print0 | sort -z | xargs -0 md5sum
"""
LOOK = FILES + "getcap -r / 2>/dev/null\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, debian: str) -> Path:
    """The same as a tree of files."""
    top = tmp_path_factory.mktemp("debian")
    options = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--exclude=./dev/*")
    subprocess.run(["tar", "-xpf", str(plain_root()), *options, "-C", str(top)], check=True)
    return top


@pytest.fixture(scope="module")
def wanted(daemon: RunningDaemon, debian: str) -> str:
    """What there is to see in the image of the tar."""
    with Client(daemon.endpoint) as client, client.create(image=debian) as box:
        return output(box, LOOK)


# xz takes long to unpack, as does a tree to be written.
FORMS = [pytest.param(form, marks=pytest.mark.slow) if form in ("xz", "tree") else form for form in (*PACKERS, "tree")]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_same_root(
    client: Client, wanted: str, form: str, request: pytest.FixtureRequest
) -> None:
    client.images.import_("again", request.getfixturevalue("tree") if form == "tree" else plain_root(form))
    with client.create(image="again") as again:
        assert output(again, LOOK) == wanted
    client.images.delete("again")


@pytest.mark.slow  # debootstrap takes a minute, once
def test_a_tree_of_debootstrap_becomes_the_same_root(client: Client) -> None:
    if reason := debootstrap_tree.why_not():
        pytest.skip(reason)
    tree = debootstrap_tree.debootstrap_tree()
    wanted = subprocess.run(["chroot", tree, "sh", "-euc", FILES], capture_output=True, text=True, check=True).stdout
    imported = client.images.import_("debootstrap", tree)
    assert imported.skipped_devices == len([one for one in (tree / "dev").rglob("*") if is_device(one)])
    assert not imported.image.skipped_attributes
    with client.create(image="debootstrap") as box:
        assert output(box, FILES) == wanted.strip()
        assert output(box, "dpkg --audit; su -s /bin/sh nobody -c 'id -un'; apt-get check >/dev/null") == "nobody"
    client.images.delete("debootstrap")


def is_device(path: Path) -> bool:
    return not path.is_symlink() and (path.is_char_device() or path.is_block_device())


# -- uses


@dataclass(frozen=True)
class Use:
    """script: for sh with -eu; says: what it prints in the end."""

    what: str
    script: str
    says: str


USES = (
    Use("perl", """perl -MPOSIX -e 'print join(" ", map { $_ * $_ } 1..4), " ", POSIX::floor(2.5)'""", "1 4 9 16 2"),
    Use(
        "useradd, passwd, and setuid su to another user by a password",
        """
        useradd -m jane; useradd -m john; echo john:secret | chpasswd; stat -c %A /usr/bin/su
        su jane -c "echo secret | su john -c 'id -un; echo \\$HOME'" 2>/dev/null
        """,
        "-rwsr-xr-x\njohn\n/home/john",
    ),
    Use(
        "userdel, groupadd, usermod",
        "useradd -m jane; groupadd staff2; usermod -aG staff2 jane; id -nG jane; userdel -r jane; ls /home",
        "jane staff2",
    ),
    Use(
        "setcap, whose capability has effect",
        """
        useradd jane; cp /usr/bin/perl /usr/local/bin/perl-of-chown; touch /tmp/file
        setcap cap_chown=ep /usr/local/bin/perl-of-chown; getcap /usr/local/bin/perl-of-chown
        for perl in perl perl-of-chown; do su jane -c "$perl -e 'print chown(7, 7, q(/tmp/file))'"; done; echo
        stat -c %u /tmp/file
        """,
        "/usr/local/bin/perl-of-chown cap_chown=ep\n01\n7",
    ),
    Use(
        "a capability that the tar has had",
        """
        useradd jane; getcap /usr/bin/ping; echo 1 0 >/proc/sys/net/ipv4/ping_group_range
        cp /usr/bin/ping /usr/local/bin/without; su jane -c 'without -c1 127.0.0.1' >&2 && echo 'it needs none'
        su jane -c 'ping -c1 -W5 127.0.0.1' | grep -o '1 received'
        """,
        "/usr/bin/ping cap_net_raw=ep\n1 received",
    ),
    Use(
        "a process tree with ps",
        """
        sh -c 'sleep 1000 & sh -c "sleep 1001 & wait" & wait' &
        until [ "$(ps -e -o comm= | grep -c sleep)" = 2 ]; do sleep 0.05; done
        ps --forest -o args= -C sleep,sh | grep -c '\\\\_ [s]leep'; test -n "$(ps -o pid= --ppid $!)"
        pkill sleep; wait; ps -e -o comm= | grep -c sleep || true
        """,
        "2\n0",
    ),
    Use(
        "xattrs and ACLs",
        """
        useradd jane; touch /root/../var/file; cd /var; setfattr -n user.note -v hello file; setfacl -m u:jane:rw file
        getfattr --only-values -n user.note file; echo; getfacl -cp file | grep jane
        su jane -c 'echo mine > /var/file'; cat file
        """,
        "hello\nuser:jane:rw-\nmine",
    ),
)


@pytest.mark.parametrize("use", USES, ids=attrgetter("what"))
def test_it_works_as_on_a_host(box: Container, use: Use) -> None:
    assert output(box, use.script) == use.says


async def test_two_hundred_commands_at_once_each_say_their_own(daemon: RunningDaemon, box: Container) -> None:
    async with AsyncClient(daemon.endpoint) as client:
        same = await client.get(box.id)
        runs = [same.run(["perl", "-e", f"print {number} * 2"], timeout=PATIENCE_S) for number in range(AT_ONCE)]
        results = await asyncio.gather(*runs)
    assert [(one.exit_code, one.stdout) for one in results] == [(0, str(2 * n).encode()) for n in range(AT_ONCE)]


# -- packages

CONTROL = """Package: {name}
Version: {version}
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: made on the spot
"""
# What a maintainer's scripts were told, by whom.
SCRIPT = '#!/bin/sh\nset -e\necho "{script} $1 $(id -un)" >>/var/log/{name}\n'
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def built(directory: Path, name: str, version: str) -> Path:
    """A package with a program, a file of configuration and scripts, by dpkg-deb."""
    tree = directory / f"{name}-{version}"
    for folder in ("DEBIAN", "usr/bin", "etc"):
        (tree / folder).mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(CONTROL.format(name=name, version=version))
    (tree / "DEBIAN/conffiles").write_text(f"/etc/{name}.conf\n")
    (tree / f"etc/{name}.conf").write_text("as packaged\n")
    (tree / f"usr/bin/{name}").write_text(f"#!/bin/sh\necho {name} {version}\n")
    for script in SCRIPTS:
        (tree / "DEBIAN" / script).write_text(SCRIPT.format(script=script, name=name))
    for program in (*(tree / "DEBIAN" / script for script in SCRIPTS), tree / f"usr/bin/{name}"):
        program.chmod(0o755)
    command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(directory / f"{name}_{version}.deb")]
    subprocess.run(command, check=True, capture_output=True)
    return directory / f"{name}_{version}.deb"


def index(packages: list[Path]) -> str:
    """`Packages` of a repository of files (deb(5), the Debian repository format)."""
    paragraphs = []
    for deb in packages:
        control = subprocess.run(["dpkg-deb", "--field", str(deb)], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        paragraphs.append(f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n")
    return "\n".join(paragraphs)


def add_repository(box: Container, packages: list[Path]) -> None:
    """/repo in the container, the only one that its apt knows."""
    sent = io.BytesIO()
    with tarfile.open(fileobj=sent, mode="w") as archive:
        for deb in packages:
            archive.add(deb, deb.name)
        text = index(packages).encode()
        entry = tarfile.TarInfo("Packages")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    output(
        box,
        "mkdir /repo; tar -x --no-same-owner -C /repo; rm -f /etc/apt/sources.list.d/*; "
        "echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list; apt-get update 2>&1",
        input=sent.getvalue(),
    )


def test_apt_installs_upgrades_and_purges_from_a_repository_of_files(box: Container, tmp_path: Path) -> None:
    one, two = built(tmp_path, "hello-here", "1.0"), built(tmp_path, "hello-here", "2.0")
    add_repository(box, [one, two])
    assert output(box, "apt-get install -y hello-here=1.0 >&2; hello-here") == "hello-here 1.0"
    assert output(box, "apt-get upgrade -y >&2; hello-here; dpkg -V hello-here") == "hello-here 2.0"
    output(box, "apt-get purge -y hello-here; test ! -e /etc/hello-here.conf; dpkg --audit")
    told = output(box, "cat /var/log/hello-here").splitlines()
    assert told == [
        f"{line} root"
        for line in (
            *("preinst install", "postinst configure", "prerm upgrade", "preinst upgrade", "postrm upgrade"),
            *("postinst configure", "prerm remove", "postrm remove", "postrm purge"),
        )
    ]


def test_dpkg_installs_a_file(box: Container, tmp_path: Path) -> None:
    deb = built(tmp_path, "hello-file", "1.0")
    output(box, "cat >/tmp/it.deb; dpkg -i /tmp/it.deb", input=deb.read_bytes())
    assert output(box, "hello-file; dpkg-query -W -f '${Status}' hello-file") == "hello-file 1.0\ninstall ok installed"


# A server that has nothing, and writes down whose process asks it.
ASKED = """
cat >/tmp/server <<'END'
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1:8000", Listen => 5) or die $!;
open my $ready, ">", "/tmp/ready"; close $ready;
while (my $client = $server->accept) {
    1 while <$client> =~ /\\S/;
    system "ps -o user= -C http >>/tmp/users";
    print $client "HTTP/1.0 404 nothing\\r\\nContent-Length: 0\\r\\n\\r\\n";
}
END
perl /tmp/server & until [ -e /tmp/ready ]; do sleep 0.05; done
rm -f /etc/apt/sources.list.d/*; echo 'deb [trusted=yes] http://127.0.0.1:8000/ ./' >/etc/apt/sources.list
apt-get update >/tmp/log 2>&1 || true; kill $!; grep -i sandbox /tmp/log || true; sort -u /tmp/users
"""


def test_apt_fetches_as_its_own_user(box: Container) -> None:
    assert output(box, ASKED) == "_apt"


# -- services


@pytest.fixture
def served(box: Container) -> Container:
    """A container whose apt knows the services' packages, and starts none of them by itself."""
    output(box, "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")
    add_repository(box, sorted(debs().iterdir()))
    return box


INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {} >&2; "
GET = """
perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new("127.0.0.1:80") or die $!;
print $s "GET /index.html HTTP/1.0\\r\\n\\r\\n"; print while <$s>'
"""


def test_nginx_serves_over_loopback(served: Container) -> None:
    output(served, INSTALL.format("nginx-light") + "echo 'it is served' >/var/www/html/index.html; service nginx start")
    assert output(served, GET).endswith("it is served")
    assert output(served, "ps -o user= -C nginx | sort -u") == "root\nwww-data"
    output(served, "service nginx stop; ! pgrep nginx")


QUERIES = "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000); SELECT sum(n) FROM t;"


@pytest.mark.slow
def test_postgresql_answers_over_loopback(served: Container) -> None:
    output(served, INSTALL.format("postgresql-15"))
    output(
        served, 'pg_ctlcluster 15 main start; su postgres -c "psql -c \\"ALTER USER postgres PASSWORD \'secret\'\\""'
    )
    psql = f"PGPASSWORD=secret psql -h 127.0.0.1 -U postgres -qtA -c '{QUERIES}'"
    assert output(served, psql) == "500500"
    assert output(served, "pg_ctlcluster 15 main restart; " + psql.replace(QUERIES, "SELECT count(*) FROM t")) == "1000"
    output(served, "pg_ctlcluster 15 main stop; ! pgrep postgres")
