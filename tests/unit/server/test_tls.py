"""Files that TLS cannot be begun with are named with the reason; new ones are taken when they are good."""

import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from sysproc.errors import FailedPrecondition
from sysproc.server.settings import TlsFiles
from sysproc.server.tls import ServerTls, load
from sysproc_client.certificates import Authority
from tests.unit.server.authorities import EXPIRED, NOT_YET, authority, files_of


@pytest.fixture
def made(tmp_path: Path) -> Authority:
    return authority(tmp_path / "ca")


@pytest.fixture
def files(made: Authority) -> TlsFiles:
    return files_of(made.directory)


def other_authority(made: Authority) -> Path:
    return authority(made.directory.parent / "other").directory


def test_good_files_are_taken_and_the_authority_names_the_trust_domain(files: TlsFiles) -> None:
    tls = load(files)
    assert tls.domain == "sysproc"
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert tls.context.verify_mode == ssl.CERT_REQUIRED
    assert tls.context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert tls.context.num_tickets == 0


Spoil = Callable[[Authority], object]


def another_key(made: Authority) -> None:
    shutil.copy(other_authority(made) / "server.key", made.directory / "server.key")


def another_ca(made: Authority) -> None:
    for name in ("ca.pem", "crl.pem"):
        shutil.copy(other_authority_once(made) / name, made.directory / name)


def other_authority_once(made: Authority) -> Path:
    there = made.directory.parent / "other"
    return there if there.exists() else other_authority(made)


def client_instead(made: Authority) -> None:
    pair = made.issue_client(None)
    shutil.copy(pair.cert, made.directory / "server.pem")
    shutil.copy(pair.key, made.directory / "server.key")


@pytest.mark.parametrize(
    ("spoil", "file", "why"),
    [
        (lambda made: (made.directory / "server.pem").unlink(), "server.pem", "does not exist"),
        (lambda made: (made.directory / "crl.pem").unlink(), "crl.pem", "does not exist"),
        (lambda made: (made.directory / "server.key").chmod(0o644), "server.key", "others can read it"),
        (lambda made: (made.directory / "server.pem").write_text("x"), "server.pem", "not a certificate and its"),
        (lambda made: (made.directory / "ca.pem").write_text("x"), "ca.pem", "does not hold a certificate authority"),
        (lambda made: (made.directory / "crl.pem").write_text("x"), "crl.pem", "does not hold a list"),
        (
            lambda made: shutil.copy(made.directory / "ca.pem", made.directory / "crl.pem"),
            "crl.pem",
            "does not hold a list",
        ),
        (lambda made: made.issue_server(["x"], EXPIRED), "server.pem", "certificate has expired"),
        (lambda made: made.issue_server(["x"], NOT_YET), "server.pem", "certificate is not yet valid"),
        (lambda made: made.revoke(str(made.directory / "server.pem")), "server.pem", "certificate revoked"),
        (another_key, "server.pem", "is not its key"),
        (another_ca, "server.pem", "unable to get"),
        (client_instead, "server.pem", "unsuitable certificate purpose"),
        (
            lambda made: shutil.copy(other_authority(made) / "crl.pem", made.directory / "crl.pem"),
            "crl.pem",
            "unable to get certificate CRL",
        ),
    ],
)
def test_what_is_no_good_is_named_with_the_reason(
    made: Authority, files: TlsFiles, spoil: Spoil, file: str, why: str
) -> None:
    spoil(made)
    with pytest.raises(FailedPrecondition) as refused:
        load(files)
    assert refused.value.brief.startswith(f"{made.directory / file} cannot be used for TLS")
    assert why in refused.value.brief
    assert refused.value.resolution


def test_new_files_are_taken_without_being_told(made: Authority, files: TlsFiles) -> None:
    tls = ServerTls(files)
    before = tls.present()
    assert tls.present() is before
    made.issue_server(["renewed"])
    assert tls.present() is not before


def test_bad_new_files_leave_the_old_ones_in_use_until_they_are_mended(made: Authority, files: TlsFiles) -> None:
    tls = ServerTls(files)
    before = tls.present().context
    good = files.cert.read_bytes()
    for spoiled in (b"", good[:100]):
        files.cert.write_bytes(spoiled)
        assert tls.present().context is before
    files.cert.unlink()
    assert tls.present().context is before
    files.cert.write_bytes(good)
    assert tls.present().context is not before
