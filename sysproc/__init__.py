"""sysproc: hierarchical Linux containers as a gRPC service, after `sys::proc` of the NightOS specification.

The layers, from the top: `server`, the verbs (`containers`, `processes`, `images`, `system`), then `isolation`,
`storage` and `hw`, then `linux`, then `errors`. `docs/ARCHITECTURE.md` says where to change what.
"""
