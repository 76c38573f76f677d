"""The kernel, as Python functions of the kernel's own names: syscalls, ioctls, prctls, sockets with fds.

One file a family; each wrapper does one call and raises OSError whose filename says call and target. Nothing here
decides anything: policies are in `sysproc.isolation` and `sysproc.storage`.
"""
