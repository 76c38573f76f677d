"""Filesystems of virtual storage files, mounted into containers that run (specification: virtual storage devices).

    devices      the one loop device of a filesystem: found, or made
    attach       a mount of it in a container: flags locked, ids mapped
    detach       taken out again, by the mount's id
    grow         the filesystem grown while it is mounted
    shrink       the filesystem in a copy, made smaller
    holders      who still uses it: mounts in any namespace, open files, programs that run

Jobs of `sysproc.isolation.jobs`; which volumes there are, and who may mount them, is decided above.
"""
