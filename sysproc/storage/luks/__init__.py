"""LUKS2: encrypted areas of a file, as cryptsetup and every Linux know them (LUKS2 On-Disk Format Specification 1.1).

    volume.py     making, opening, changing keys: what others use    refusals.py     the errors
    headers.py    both copies of the header                          region.py       the area of the file
    metadata.py   what their JSON says; json_text.py, fields.py      bounds.py       what is refused as too much
    edit.py       JSON that is made or changed                       key_slots.py    a volume key below a passphrase
    splitter.py, key_derivation.py, sector_cipher.py                 what a key slot takes

`docs/VSF.md`, section "Encryption", says what is written and in which order. Serving what is decrypted is done in
`sysproc.storage.decrypted`, or by the kernel.
"""
