"""Virtual storage files: GPT images with one filesystem a partition, as bytes on the host's disk.

Mounting them is done in `sysproc.isolation`, by processes that are made for it; nothing here needs a privilege.
"""
