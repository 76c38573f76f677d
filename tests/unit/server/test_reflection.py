"""What tools find of the API by asking the service: files by each kind of symbol."""

import pytest

from nightos.sysproc.v1 import system_service_pb2
from sysproc.server.reflection import Symbols

PACKAGE = "nightos.sysproc.v1"


@pytest.mark.parametrize("symbol", ["SystemService", "SystemService.WhoAmI", "WhoAmIRequest", "WhoAmIResponse.uid"])
def test_each_kind_of_symbol_has_its_file(symbol: str) -> None:
    found = Symbols().FindFileContainingSymbol(f"{PACKAGE}.{symbol}")
    assert found.name == system_service_pb2.DESCRIPTOR.name


@pytest.mark.parametrize("symbol", ["SystemService.NoSuch", "NoSuch.WhoAmI", "NoSuch", ""])
def test_what_does_not_exist_is_not_found(symbol: str) -> None:
    with pytest.raises(KeyError):
        Symbols().FindFileContainingSymbol(f"{PACKAGE}.{symbol}")
