"""A program in a container that owns containers; `examples/tree.sh` runs it inside. Argument: the id of its uncle."""

import sys

from sysproc_client import Client, LimitExceeded, PermissionDenied

with Client() as client:
    me = client.whoami()
    print(f"I am uid {me.uid} in container {me.container_id:016x}, {me.container_name!r}.")

    workers = [client.create(image="busybox", name=name, memory="32M", pids=16) for name in ("left", "right")]
    for number, worker in enumerate(workers, start=1):
        done = worker.run(["sh", "-c", f"hostname; seq {number}000 | awk '{{ sum += $1 }} END {{ print sum }}'"])
        print("work in", *done.stdout.decode().split(), sep=" ")
    print("below me:", ", ".join(client.path(one.id) for one in client.list() if one.parent_id))

    try:
        client.create(memory="1G")
    except LimitExceeded as refused:
        print("more memory than I have:", refused)
    try:
        client.get(sys.argv[1])
    except PermissionDenied as refused:
        print("my uncle:", refused)
