"""Containers in the kernel: namespaces, cgroups, seccomp, the launcher process, container init, exec.

What lasts on disk is in `sysproc.storage`, wrappers of single system calls are in `sysproc.linux`; the verbs that
compose both are above. The launcher process imports nothing but this package, `sysproc.linux` and the standard library.
"""
