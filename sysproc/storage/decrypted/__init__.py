"""What is decrypted: a device of dm-crypt, or a file of a FUSE process for each open volume where there is none.

The header and the keys are the business of `sysproc.storage.luks`.
"""
