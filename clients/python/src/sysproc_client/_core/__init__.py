"""The core of the client, without I/O: requests, the exec state machine, errors, rules of retrying.

The shells around it (`sysproc_client.client` and `sysproc_client.aio.client`) do the I/O and nothing else.
"""
