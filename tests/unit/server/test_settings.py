"""One cascade decides each setting, and a mistake is named together with where it was made."""

from pathlib import Path

import pytest

from sysproc.errors import InvalidArgument
from sysproc.isolation.uid_ranges import SIZE
from sysproc.server.settings import SETTINGS, Settings, decide


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "sysprocd.toml"


def test_flags_win_over_variables_over_the_file_over_the_default(config: Path) -> None:
    config.write_text('spool_bytes = "1M"\ngroup = "file"\nlog_level = "error"\n')
    variables = {"SYSPROC_SPOOL_BYTES": "2M", "SYSPROC_GROUP": "variable"}
    decided = decide({"spool_bytes": "3M"}, variables, config)
    got = {name: (getattr(decided.settings, name), decided.origins[name]) for name in SETTINGS}
    assert got["spool_bytes"] == (3 * 2**20, "--spool-bytes")
    assert got["group"] == ("variable", "SYSPROC_GROUP")
    assert got["log_level"] == ("error", str(config))
    assert got["state_dir"] == (Path("/var/lib/sysproc"), "default")


def test_the_default_endpoint_is_in_the_runtime_directory() -> None:
    assert [str(one) for one in decide({"runtime_dir": "/run/x"}, {}).settings.endpoints] == [
        "unix:///run/x/sysproc.sock"
    ]


def test_several_endpoints_come_as_flags_as_a_list_and_with_commas(config: Path) -> None:
    config.write_text('listen = ["unix:///a", "unix:///b"]')
    expected = ("unix:///a", "unix:///b")
    for decided in (
        decide({"listen": ("unix:///a", "unix:///b")}, {}),
        decide({}, {"SYSPROC_LISTEN": "unix:///a,unix:///b"}),
        decide({}, {}, config),
    ):
        assert tuple(map(str, decided.settings.listen)) == expected


def test_tcp_endpoints_stand_beside_the_hosts_own_socket() -> None:
    listen = ("tcp://Box.example.org:7443", "tcp://192.0.2.1:7443", "tcp://[2001:db8::1]:7443")
    assert [str(one) for one in decide({"listen": listen}, {}).settings.endpoints] == [
        "unix:///run/sysproc/sysproc.sock",
        "tcp://box.example.org:7443",
        "tcp://192.0.2.1:7443",
        "tcp://[2001:db8::1]:7443",
    ]


def test_the_files_of_tls_are_in_one_directory_unless_they_are_named() -> None:
    assert decide({}, {}).settings.tls_files is None
    flags = {"listen": "tcp://0.0.0.0:1", "tls_dir": "/d", "tls_crl": "/elsewhere/crl"}
    files = decide(flags, {"SYSPROC_SERVER_TLS_DOMAIN": "example.org"}).settings.tls_files
    assert files is not None
    assert list(map(str, files.all())) == ["/d/server.pem", "/d/server.key", "/d/ca.pem", "/elsewhere/crl"]
    assert files.domain == "example.org"


def test_what_a_caller_shows_is_not_what_the_server_shows() -> None:
    variables = {"SYSPROC_TLS_CERT": "/mine", "SYSPROC_TLS_KEY": "/mine", "SYSPROC_TLS_CA": "/mine"}
    assert decide({}, variables).settings == Settings()


def test_each_setting_is_printed_with_its_origin(config: Path) -> None:
    config.write_text("streams_per_connection = 7\n")
    lines = list(decide({"state_dir": "/s"}, {"SYSPROC_LOG_FORMAT": "json"}, config).lines())
    assert len(lines) == len(SETTINGS)
    assert [line.split() for line in lines if "default" not in line] == [
        ["state_dir", "/s", "--state-dir"],
        ["streams_per_connection", "7", str(config)],
        ["log_format", "json", "SYSPROC_LOG_FORMAT"],
    ]


@pytest.mark.parametrize(
    ("flags", "variables", "text", "says"),
    [
        ({}, {}, "stat_dir = '/x'", "Did you mean `state_dir`?"),
        ({}, {"SYSPROC_STATEDIR": "/x"}, "", "Did you mean `SYSPROC_STATE_DIR`?"),
        ({}, {}, "spool_bytes = true", "`spool_bytes` in "),
        ({}, {}, "spool_bytes = [1]", "is no size"),
        ({}, {}, "spool_bytes = ", "cannot be read"),
        ({"spool_bytes": "1"}, {}, "", "not between 65536 and"),
        ({"state_dir": "relative"}, {}, "", "is not an absolute path"),
        ({"state_dir": "/a/../b"}, {}, "", "is not an absolute path"),
        ({"runtime_dir": "/" + "x" * 90}, {}, "", "too long for sockets"),
        ({"listen": ("tcp://0.0.0.0",)}, {}, "", "of the form tcp://host:port"),
        ({"listen": ("tcp://0.0.0.0:0",)}, {}, "", "the port is not between"),
        ({"listen": ("tcp://0.0.0.0:65536",)}, {}, "", "the port is not between"),
        ({"listen": ("tcp://::1:7443",)}, {}, "", "of the form tcp://host:port"),
        ({"listen": ("tcp://[::g]:7443",)}, {}, "", "::g"),
        ({"listen": ("tcp://[1.2.3.4]:7443",)}, {}, "", "--listen"),
        ({"listen": ("tcp://host:7443/x",)}, {}, "", "of the form tcp://host:port"),
        ({"listen": ("http://host:7443",)}, {}, "", "unix:///path or tcp://host:port"),
        ({"tls_domain": "A/b"}, {}, "", "no trust domain"),
        ({"tls_dir": "relative"}, {}, "", "is not an absolute path"),
        ({"listen": ("unix:relative",)}, {}, "", "of the form unix:///path"),
        ({"listen": ("unix:///" + "x" * 110,)}, {}, "", "longer than 107 bytes"),
        ({}, {"SYSPROC_LISTEN": ""}, "", "is no text"),
        ({"uid_range": "0:1"}, {}, "", "does not lie between"),
        ({"uid_range": "70000:70000"}, {}, "", "does not lie between"),
        ({"uid_range": "many"}, {}, "", "FIRST:COUNT"),
        ({"shutdown_grace_s": "nan"}, {}, "", "is not between"),
        ({"streams_per_connection": 1.5}, {}, "", "no whole number"),
        ({"log_level": "loud"}, {}, "", "is none of debug"),
        ({"group": "a:b"}, {}, "", "is no name of a group"),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_do(
    flags: dict[str, object], variables: dict[str, str], text: str, says: str, config: Path
) -> None:
    config.write_text(text)
    with pytest.raises(InvalidArgument) as refused:
        decide(flags, variables, config)
    assert says in str(refused.value)
    assert refused.value.resolution


def test_the_default_uids_are_nobody_elses() -> None:
    """Ranges that systemd documents in its UIDS-GIDS.md, and the 31 bits beyond which tools are known to fail."""
    uids = Settings().uid_range
    ours = range(uids.first, uids.first + uids.count * SIZE)
    of_nspawn, foreign = range(524288, 1879048192), range(0x7FFE0000, 0x7FFF0000)
    assert (ours.start, ours.stop) == (of_nspawn.stop, foreign.start)
    assert ours.stop <= 2**31


def test_a_file_that_was_named_must_exist_and_the_default_one_need_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="does not exist"):
        decide({}, {"SYSPROC_CONFIG": str(tmp_path / "none")})
    assert decide({}, {}).settings == Settings()


def test_variables_of_other_programs_are_left_alone() -> None:
    variables = {"SYSPROC_ENDPOINT": "unix:///x", "SYSPROC_FAILPOINTS": "", "SYSPROC_SOMETHING_ELSE": "1"}
    assert decide({}, variables).settings == Settings()
