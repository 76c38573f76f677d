"""What the authority in a directory issues verifies, what it revokes does not; its files are never half there."""

import json
import re
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from sysproc_client import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sysproc_client.certificates import Authority, Pair

ID = "00c0ffee00c0ffee"


@pytest.fixture
def made(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", "example.org")


def read(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def uris(pair: Pair) -> list[str]:
    names = read(pair.cert).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def test_the_authority_signs_certificates_and_no_other_authority(made: Authority) -> None:
    ca = read(made.directory / "ca.pem")
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert Authority(made.directory).domain == "example.org"


def test_callers_get_the_identity_that_was_asked_for_and_only_that(made: Authority) -> None:
    host, container = made.issue_client(None), made.issue_client(ID)
    assert uris(host) == ["spiffe://example.org/host"]
    assert uris(container) == [f"spiffe://example.org/container/{ID}"]
    usage = read(host.cert).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_servers_certificate_verifies_for_its_names_and_no_other(made: Authority) -> None:
    pair = made.issue_server(["box.example.org", "192.0.2.1", "[2001:db8::1]"])
    store = Store([read(made.directory / "ca.pem")])
    verifier = PolicyBuilder().store(store)
    assert verifier.build_server_verifier(x509.DNSName("box.example.org")).verify(read(pair.cert), [])
    with pytest.raises(Exception, match="no matching subjectAltName"):
        verifier.build_server_verifier(x509.DNSName("other.example.org")).verify(read(pair.cert), [])


def test_keys_are_closed_to_others_and_nothing_half_written_stays(made: Authority) -> None:
    pair = made.issue_client(None)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in made.directory.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {"ca.key", pair.key.name}
    assert {mode for name, mode in modes.items() if not name.endswith(".key")} == {0o644}
    assert not [name for name in modes if name.startswith(".")]


def test_an_authority_is_never_overwritten_unless_forced(made: Authority) -> None:
    before = (made.directory / "ca.key").read_bytes()
    with pytest.raises(AlreadyExists, match="already"):
        Authority.create(made.directory, "example.org")
    assert (made.directory / "ca.key").read_bytes() == before
    Authority.create(made.directory, "example.org", force=True)
    assert (made.directory / "ca.key").read_bytes() != before


def test_everything_issued_is_listed_with_random_numbers(made: Authority) -> None:
    pairs = [made.issue_client(None), made.issue_client(ID), made.issue_server(["x"])]
    issued = made.issued()
    assert [one.serial for one in issued] == [f"{read(pair.cert).serial_number:x}" for pair in pairs]
    assert len({one.serial for one in issued}) == 3
    assert all(int(one.serial, 16) > 2**100 for one in issued)
    for line in (made.directory / "issued.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_revoked_one_is_on_the_signed_list_by_number_or_file(made: Authority) -> None:
    by_file, by_number, neither = (made.issue_client(None) for _ in range(3))
    made.revoke(str(by_file.cert))
    for _ in range(2):
        made.revoke(by_number.issued.serial.upper())
    assert made.revoked() == {by_file.issued.serial, by_number.issued.serial}
    crl = x509.load_pem_x509_crl((made.directory / "crl.pem").read_bytes())
    ca = read(made.directory / "ca.pem")
    assert crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]  # it is one of an elliptic curve
    assert crl.next_update_utc == ca.not_valid_after_utc
    assert len(list(crl)) == 2
    assert neither.issued.serial not in made.revoked()


def test_what_it_has_not_issued_cannot_be_revoked(made: Authority, tmp_path: Path) -> None:
    stranger = Authority.create(tmp_path / "other", "example.org").issue_client(None)
    for certificate in ("12ab", "no number", "", str(stranger.cert)):
        with pytest.raises(NotFound):
            made.revoke(certificate)


@pytest.mark.parametrize("container", ["web", "", "0" * 16, ID.upper(), ID + "0", ID + "\n"])
def test_only_an_id_names_a_container(made: Authority, container: str) -> None:
    with pytest.raises(InvalidArgument, match="no id of a container"):
        made.issue_client(container)
    assert made.issued() == []


@pytest.mark.parametrize("name", ["", "a b", "-x", "x..y", "x" * 64, "1.2.3.4.5/6", "ä"])
def test_only_names_and_addresses_are_a_servers(made: Authority, name: str) -> None:
    with pytest.raises(InvalidArgument, match="neither the name of a host nor an address"):
        made.issue_server([name])


@pytest.mark.parametrize("domain", ["", "A", "a/b", "a b", "a\n"])
def test_only_small_letters_and_digits_are_a_trust_domain(tmp_path: Path, domain: str) -> None:
    with pytest.raises(InvalidArgument, match="no trust domain"):
        Authority.create(tmp_path / "ca", domain)
    assert not (tmp_path / "ca").exists()


def test_a_directory_that_is_no_authority_is_said_so(made: Authority, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=re.escape("ca.pem does not exist")):
        Authority(tmp_path / "none")
    (made.directory / "ca.key").write_bytes((Authority.create(tmp_path / "o", "x").directory / "ca.key").read_bytes())
    with pytest.raises(FailedPrecondition, match=re.escape("ca.key is not the key of ca.pem")):
        Authority(made.directory)
