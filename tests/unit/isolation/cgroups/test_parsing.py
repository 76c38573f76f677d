"""Reading what the kernel writes about cgroups, without a kernel."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.errors import InvalidArgument
from sysproc.isolation.cgroups import CgroupMode, NoSuchCgroup
from sysproc.isolation.cgroups.control_files import parse_flat_keyed, parse_limit
from sysproc.isolation.cgroups.controllers import CONTROLLERS, bind, to_enable
from sysproc.isolation.cgroups.hierarchies import Hierarchies, Hierarchy, parse, unescape
from sysproc.isolation.cgroups.identity import container_of_path, path_in_proc_cgroup
from sysproc.isolation.cgroups.limits import Limits
from sysproc.isolation.cgroups.root import DEFAULT, default_root, normalized

UNIFIED = Hierarchies(Hierarchy("", "/sys/fs/cgroup"), (), frozenset({"cpu", "memory", "pids", "io", "cpuset"}))

SYSTEMD_UNIFIED = """\
22 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""
SYSTEMD_HYBRID = """\
30 22 0:26 / /sys/fs/cgroup ro shared:8 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd
35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:13 - cgroup cgroup rw,cpu,cpuacct
36 30 0:32 /docker/1 /bound\\040here rw - cgroup cgroup rw,memory
37 30 0:32 / /sys/fs/cgroup/memory rw shared:14 - cgroup cgroup rw,memory
"""
PROC_CGROUP_HYBRID = "12:memory:/user.slice\n7:cpu,cpuacct:/\n3:pids:/unmounted\n1:name=systemd:/x:y\n0::/user.slice\n"


def test_a_host_of_version_2_only() -> None:
    assert parse(SYSTEMD_UNIFIED, "0::/init.scope\n") == (Hierarchy("", "/sys/fs/cgroup"), ())


def test_a_hybrid_host_has_each_hierarchy_where_all_of_it_is_shown() -> None:
    unified, legacy = parse(SYSTEMD_HYBRID, PROC_CGROUP_HYBRID)
    assert unified == Hierarchy("", "/sys/fs/cgroup/unified")
    assert {one.name: one.mount for one in legacy} == {
        "memory": "/sys/fs/cgroup/memory",
        "cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }


def test_the_mode_is_what_is_mounted() -> None:
    unified, legacy = parse(SYSTEMD_HYBRID, PROC_CGROUP_HYBRID)
    modes = [Hierarchies(unified, legacy).mode, Hierarchies(unified, ()).mode, Hierarchies(None, legacy).mode]
    assert modes == [CgroupMode.HYBRID, CgroupMode.UNIFIED, CgroupMode.LEGACY]


def test_controllers_of_one_hierarchy_are_found_by_each_name() -> None:
    _, legacy = parse(SYSTEMD_HYBRID, PROC_CGROUP_HYBRID)
    hierarchies = Hierarchies(None, legacy)
    assert hierarchies.v1_with("cpuacct") is hierarchies.v1_with("cpu") is not None
    assert hierarchies.v1_with("name=systemd") is None


def test_a_path_of_mountinfo_is_unescaped() -> None:
    assert unescape(r"/a\040b\134c\011") == "/a b\\c\t"


@given(st.text(alphabet=string.printable))
def test_any_text_can_be_unescaped(text: str) -> None:
    assert unescape(text.replace("\\", r"\134").replace(" ", r"\040")) == text


# -- which controller is used where


def test_on_a_host_of_version_2_only_what_limits_is_enabled() -> None:
    assert to_enable(UNIFIED) == {"cpu", "memory", "pids"}


def test_version_1_is_used_where_it_has_the_controller() -> None:
    hybrid = Hierarchies(Hierarchy("", "/u"), (Hierarchy("memory", "/m"),), frozenset({"cpu", "pids"}))
    where = {one.name: one.hierarchy for one in bind(hybrid)}
    assert where == {"memory": "memory", "cpu": None, "pids": None, "devices": None, "cpuacct": None}


def test_a_controller_that_cannot_be_enabled_is_not_used() -> None:
    names = {one.name for one in bind(Hierarchies(Hierarchy("", "/u"), ()))}
    assert names == {"devices", "cpuacct"}


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_controller_is_the_same_thing_in_both_versions(name: str) -> None:
    versions = CONTROLLERS[name]
    fields = {one.field for one in (versions.v1, versions.v2) if one is not None}
    assert len(fields) == 1
    assert fields <= {None, *vars(Limits())}


def test_each_limit_has_its_controller() -> None:
    fields = [versions.v2.field for versions in CONTROLLERS.values() if versions.v2 and versions.v2.field]
    assert sorted(fields) == sorted(vars(Limits()))


# -- control files


@given(st.integers(0, 1 << 61))
def test_a_limit_is_read_as_it_was_written(number: int) -> None:
    assert parse_limit(str(number)) == number


@pytest.mark.parametrize("text", ["max", "-1", "9223372036854771712"])
def test_no_limit_is_read_as_none(text: str) -> None:
    assert parse_limit(text) is None


@given(st.dictionaries(st.text(string.ascii_lowercase + "_", min_size=1), st.integers(0)))
def test_flat_keyed_files_are_read(pairs: dict[str, int]) -> None:
    assert parse_flat_keyed("".join(f"{key} {value}\n" for key, value in pairs.items())) == pairs


@given(st.text())
def test_a_flat_keyed_file_of_any_form_is_no_failure(text: str) -> None:
    parse_flat_keyed(text)


# -- limits


@given(st.integers(-(1 << 70), 1 << 70), st.integers(-(1 << 40), 1 << 40), st.integers(-(1 << 40), 1 << 40))
def test_a_limit_is_in_range_or_named(memory: int, cpu: int, pids: int) -> None:
    named = {one.field for one in Limits(memory, cpu, pids).violations()}
    assert named == {
        name
        for name, bad in {
            "limits.memory_bytes": not 4 << 20 <= memory < 1 << 63,
            "limits.cpu_millis": not 10 <= cpu <= 8192000,
            "limits.pids": not 4 <= pids <= 4 << 20,
        }.items()
        if bad
    }


def test_absent_limits_are_fine() -> None:
    Limits().check()


# -- whose a cgroup is

A, B = "000000000000000a", "ffffffffffffffff"


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        (f"/sysproc/{A}/procs", (A,)),
        (f"/sysproc/{A}/{B}/procs", (A, B)),
        (f"/sysproc/{A}/procs/{B}/procs", (A,)),
        (f"/sysproc/{A}/procs/procs (deleted)", (A,)),
        (f"/sysproc/{A}/procs (deleted)", (A,)),
        ("/", None),
        ("/sysproc", None),
        ("/sysproc/launcher", None),
        ("/sysproc/daemon", None),
        (f"/sysproc2/{A}/procs", None),
        (f"/x/sysproc/{A}/procs", None),
        ("/user.slice/session.scope", None),
    ],
)
def test_the_container_is_what_stands_before_the_first_procs(path: str, ids: tuple[str, ...] | None) -> None:
    assert container_of_path(path, "sysproc") == ids


@pytest.mark.parametrize("rest", [A, f"{A}/{B}", "procs", f"procs/{A}", f"{A}/x/procs", f"x/{A}/procs", "launcherx"])
def test_what_has_another_form_below_our_root_is_refused(rest: str) -> None:
    with pytest.raises(NoSuchCgroup):
        container_of_path(f"/sysproc/{rest}", "sysproc")


@given(st.lists(st.sampled_from([A, B, "procs", "launcher", "x", "..", ""]), max_size=6))
def test_only_our_own_groups_and_those_elsewhere_are_the_hosts(steps: list[str]) -> None:
    try:
        ids = container_of_path("/".join(["/sysproc", *steps]), "sysproc")
    except NoSuchCgroup:
        return
    kept = [step for step in steps if step]
    assert (kept[:1] in ([], ["launcher"])) if ids is None else kept[: len(ids) + 1] == [*ids, "procs"]


def test_the_path_of_one_hierarchy_is_found_whatever_is_in_it() -> None:
    assert path_in_proc_cgroup(PROC_CGROUP_HYBRID, "") == "/user.slice"
    assert path_in_proc_cgroup(PROC_CGROUP_HYBRID, "name=systemd") == "/x:y"
    with pytest.raises(NoSuchCgroup):
        path_in_proc_cgroup(PROC_CGROUP_HYBRID, "cpu")


# -- the root


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("sysproc", "sysproc"),
        ("/sysproc/", "sysproc"),
        ("a/b", "a/b"),
        ("/sys/fs/cgroup/a/b", "a/b"),
        ("/sys/fs/cgroups", "sys/fs/cgroups"),
    ],
)
def test_a_root_is_a_path_below_the_mounts(name: str, root: str) -> None:
    assert normalized(name, UNIFIED) == root


@pytest.mark.parametrize("name", ["", "/", ".", "a/../..", "/sys/fs/cgroup", "/sys/fs/cgroup/"])
def test_the_mount_itself_is_no_root(name: str) -> None:
    with pytest.raises(InvalidArgument):
        normalized(name, UNIFIED)


def test_what_is_not_delegated_is_left_alone() -> None:
    assert default_root(UNIFIED, "0::/\n") == DEFAULT
    assert default_root(UNIFIED, "0::/no/such/group\n") == DEFAULT
    assert default_root(Hierarchies(None, (Hierarchy("memory", "/m"),)), "5:memory:/x\n") == DEFAULT
