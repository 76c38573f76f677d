"""Hardware: the inventory of devices, passthrough from the parent, virtual devices.

Nothing yet: a container has no hardware by default, and only the nodes of `sysproc.isolation.host_mounts`. Device
kinds come here, a file each. Neither `sysproc.isolation` nor `sysproc.storage` is imported from here.
"""
