"""What is decrypted, shown as one file, where the kernel has no dm-crypt: a FUSE process for each open volume.

The header and the keys are the business of `sysproc.storage.luks`.
"""
