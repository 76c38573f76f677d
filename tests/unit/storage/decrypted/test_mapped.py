"""What is read out of dm-crypt's table when it is written anew."""

from sysproc.linux.device_mapper import CryptTable
from sysproc.storage.decrypted.mapped import backing_of


def test_the_device_below_is_the_one_that_the_table_was_made_with() -> None:
    table = CryptTable(1 << 30, 64, "sysproc:sysproc-fd00-7f-100000", (7, 12), 16 << 20, 4096)
    assert backing_of(table.line()) == (7, 12)
