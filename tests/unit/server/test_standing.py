"""Of a certificate that was good it is told whether it still is; what cannot be told is no."""

import ssl
from pathlib import Path

import pytest

from sysproc.server.standing import NOT_OURS, REVOKED, Standing
from sysproc_client.certificates import Authority, Pair
from tests.unit.server.authorities import authority


@pytest.fixture
def made(tmp_path: Path) -> Authority:
    return authority(tmp_path / "ca")


def standing(*authorities: Authority) -> Standing:
    """Of several authorities in one file, as OpenSSL takes them."""
    files = [b"".join((one.directory / name).read_bytes() for one in authorities) for name in ("ca.pem", "crl.pem")]
    return Standing(*files)


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())


def test_what_is_on_the_list_is_revoked_and_nothing_else(made: Authority) -> None:
    one, other = made.issue_client(None), made.issue_client("00c0ffee00c0ffee")
    assert standing(made).objection(der(one)) == ""
    made.revoke(one.issued.serial)
    assert standing(made).objection(der(one)) == REVOKED
    assert standing(made).objection(der(other)) == ""


def test_each_of_several_authorities_revokes_its_own(made: Authority, tmp_path: Path) -> None:
    second = authority(tmp_path / "second")
    ours, theirs = made.issue_client(None), second.issue_client(None)
    second.revoke(theirs.issued.serial)
    assert standing(made, second).objection(der(ours)) == ""
    assert standing(made, second).objection(der(theirs)) == REVOKED
    assert standing(made).objection(der(theirs)) == NOT_OURS


def test_lists_that_come_later_add_to_the_earlier_ones_if_they_are_of_our_authority(
    made: Authority, tmp_path: Path
) -> None:
    one, other = made.issue_client(None), made.issue_client(None)
    made.revoke(one.issued.serial)
    before = standing(made)
    empty = authority(tmp_path / "second").directory / "crl.pem"
    assert before.with_lists(empty.read_bytes()).objection(der(one)) == REVOKED
    made.revoke(other.issued.serial)
    assert before.objection(der(other)) == ""
    assert before.with_lists((made.directory / "crl.pem").read_bytes()).objection(der(other)) == REVOKED


def test_what_cannot_be_read_is_not_good(made: Authority) -> None:
    whole = der(made.issue_client(None))
    assert standing(made).objection(whole[:-1])
    assert standing(made).objection(b"")
    # The signature is of something else.
    assert standing(made).objection(whole[:-1] + bytes([whole[-1] ^ 1])) == NOT_OURS


def test_files_that_are_no_authority_and_no_list_are_refused(made: Authority) -> None:
    ca, crl = ((made.directory / name).read_bytes() for name in ("ca.pem", "crl.pem"))
    for spoiled in ((b"", crl), (b"x", crl), (ca, b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")):
        with pytest.raises(ValueError, match=r"(?i)pem|parse|load"):
            Standing(*spoiled)
