"""Only one URI SAN of exactly the right form is an identity; everything else is nobody, and never an exception."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.server.identity import Identity, NotAccepted, domain_of, identity_of

NUMBERS = {"serialNumber": "0A1B", "notAfter": "Jan  1 00:00:00 2030 GMT"}
GOOD = re.compile(r"spiffe://sysproc/(host|container/[0-9a-f]{16})")


def certificate(*names: tuple[str, str]) -> dict[str, object]:
    return {**NUMBERS, "subjectAltName": names}


@given(st.integers(1, 2**64 - 1))
def test_a_container_is_named_by_its_id(number: int) -> None:
    uri = f"spiffe://sysproc/container/{number:016x}"
    assert identity_of(certificate(("URI", uri)), "sysproc") == Identity(uri, "sysproc", number, "a1b", 1893456000.0)


def test_the_host_is_no_container() -> None:
    uri = "spiffe://sysproc/host"
    assert identity_of(certificate(("DNS", "x"), ("URI", uri)), "sysproc").container_id is None


@given(st.text() | st.from_regex(r"spiffe://[a-z]*/(host|container/[0-9a-f]*)[\n/ ?#]?", fullmatch=True))
def test_no_other_text_is_an_identity(uri: str) -> None:
    try:
        identity_of(certificate(("URI", uri)), "sysproc")
    except NotAccepted:
        return
    assert GOOD.fullmatch(uri)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((), "0 URI SANs"),
        ((("DNS", "spiffe://sysproc/host"),), "0 URI SANs"),
        ((("URI", "spiffe://sysproc/host"), ("URI", "spiffe://sysproc/host")), "2 URI SANs"),
        ((("URI", "spiffe://other/host"),), "trust domain 'other'"),
        ((("URI", "spiffe://sysproc/host/"),), "neither"),
        ((("URI", "spiffe://sysproc/host\n"),), "neither"),
        ((("URI", "spiffe://sysproc/host\0"),), "neither"),
        ((("URI", "spiffe://SYSPROC/host"),), "trust domain"),
        ((("URI", "spiffe://sysproc/container/0000000000000000"),), "neither"),
        ((("URI", "spiffe://sysproc/container/00C0FFEE00C0FFEE"),), "neither"),
        ((("URI", "spiffe://sysproc/container/00c0ffee00c0ffe"),), "neither"),
        ((("URI", "spiffe://sysproc/container/٠٠c0ffee00c0ffee"),), "neither"),
        ((("URI", "https://sysproc/host"),), "neither"),
    ],
)
def test_what_is_wrong_is_said(names: tuple[tuple[str, str], ...], why: str) -> None:
    with pytest.raises(NotAccepted, match=re.escape(why)):
        identity_of(certificate(*names), "sysproc")


def test_a_certificate_without_any_names_is_nobodys() -> None:
    with pytest.raises(NotAccepted):
        identity_of(NUMBERS, "sysproc")


def test_the_trust_domain_is_what_all_authorities_agree_on() -> None:
    one, other = certificate(("URI", "spiffe://one")), certificate(("URI", "spiffe://other"))
    assert domain_of([one, one]) == "one"
    assert domain_of([one, other]) is None
    assert domain_of([certificate()]) is None
    assert domain_of([certificate(("URI", "spiffe://one/path"))]) is None
