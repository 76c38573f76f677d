"""What the daemon is made of: each part built once and given what it needs; what holds something is undone at the end.

    settings -> claims -> database, cgroups, uid ranges, launcher -> images -> host -> containers -> services

No decision about containers belongs here. What begins and ends when is in `sysproc.server.daemon`.
"""

import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from nightos.sysproc.v1 import (
    container_service_pb2,
    image_service_pb2,
    process_service_pb2,
    system_service_pb2,
    volume_service_pb2,
)
from sysproc.busybox_image import DEFAULT_PROGRAM
from sysproc.containers import Containers
from sysproc.disk_watch import DiskWatch
from sysproc.errors import FailedPrecondition
from sysproc.exec_output import output_bytes
from sysproc.held_files import HeldFiles
from sysproc.host import Host, Sockets
from sysproc.images import Images
from sysproc.isolation.cgroups import CgroupMode, CgroupTree
from sysproc.isolation.launcher_client import Launcher
from sysproc.isolation.launcher_protocol import FRAME_NAME
from sysproc.isolation.uid_ranges import UidRanges
from sysproc.jailed import Jails
from sysproc.lifetimes import Lifetimes
from sysproc.once import TaskOwner
from sysproc.processes import Processes
from sysproc.server.access import AccessUndeclared, Served, methods, served, stale_hosts
from sysproc.server.allowances import Bounds
from sysproc.server.claims import cgroup_tree, claimed, emptied_private, root_directory
from sysproc.server.container_service import ContainerService
from sysproc.server.directories import Named, make_directories
from sysproc.server.health import Health
from sysproc.server.image_service import ImageService
from sysproc.server.interceptor import Interceptor, may_call
from sysproc.server.joined import Joined
from sysproc.server.let_in import LetIn
from sysproc.server.listeners import HostListeners, gid_of
from sysproc.server.peer import Caller, Peers
from sysproc.server.process_service import ProcessService
from sysproc.server.reflection import Reflection
from sysproc.server.relay import Relay
from sysproc.server.remote import Admission, RemoteListener
from sysproc.server.setting_values import Endpoint, UnixEndpoint
from sysproc.server.settings import Settings
from sysproc.server.starts import Starts
from sysproc.server.system_service import SystemService
from sysproc.server.targets import Resolver
from sysproc.server.throttle import Rate
from sysproc.server.tls import ServerTls
from sysproc.server.volume_copy_service import VolumeCopyMethods
from sysproc.server.volume_service import VolumeService
from sysproc.server.volume_transfer_service import VolumeTransferMethods
from sysproc.states import State
from sysproc.storage import hierarchy
from sysproc.storage.database import Database
from sysproc.storage.state_dir import StateDir
from sysproc.system import System
from sysproc.to_end import to_end
from sysproc.unlocking import Unlocking
from sysproc.volume_checks import VolumeChecks
from sysproc.volume_copies import VolumeCopies
from sysproc.volume_exports import VolumeExports
from sysproc.volume_files import VolumeFiles
from sysproc.volume_imports import VolumeImports
from sysproc.volume_keys import VolumeKeys
from sysproc.volume_mounts import VolumeMounts
from sysproc.volume_packing import VolumePacking
from sysproc.volume_raw import RawVolumes
from sysproc.volume_watch import VolumeWatch
from sysproc.volumes import Volumes

log = structlog.get_logger()

GRPC_SOCKET = "grpc.sock"
# What a container may begin at once after a pause, in calls (for so long's rate) and connections: others wait for it.
CALLS_AT_ONCE_S, LEAST_CALLS_AT_ONCE, CONNECTIONS_AT_ONCE = 0.008, 2, 8

# A descriptor (its type differs between the implementations of protobuf), and what answers.
Service = tuple[Any, object]


@dataclass(frozen=True)
class Parts:
    """Everything that runs, by what the daemon does with it."""

    host: Host
    tasks: TaskOwner
    containers: Containers
    processes: Processes
    volumes: Volumes
    volume_watch: VolumeWatch
    copies: VolumeCopies
    lifetimes: Lifetimes
    disk_watch: DiskWatch
    relay: Relay
    listeners: HostListeners
    health: Health
    interceptor: Interceptor
    private_socket: Path
    admission: Admission | None


async def build(settings: Settings, stack: AsyncExitStack) -> Parts:
    """Everything, not running yet; what it holds is given back by the stack. Raises SysprocError."""
    tls = None if settings.tls_files is None else ServerTls(settings.tls_files)
    make_directories(directories(settings))
    settings.runtime_dir.chmod(0o755)  # whose sockets others may reach
    state_dir = StateDir(settings.state_dir)
    state_dir.make()
    stack.enter_context(state_dir.locked())
    stack.enter_context(claimed(settings.runtime_dir, "--runtime-dir"))
    private_socket = emptied_private(settings.runtime_dir) / GRPC_SOCKET
    database = await to_end(Database, state_dir.database)
    stack.push_async_callback(to_end, database.close)
    cgroups = cgroup_tree(settings)
    cgroups.prepare()
    stack.enter_context(claimed(root_directory(cgroups), "--cgroup-root"))
    launcher = Launcher(settings.runtime_dir, cgroups.launcher_procs)
    stack.push_async_callback(launcher.close)
    await launcher.connect()
    gid = gid_of(settings.group)
    peers = Peers(cgroups, gid, cgroup_ids=cgroups.mode is not CgroupMode.LEGACY)
    relay = Relay(private_socket, peers, bounds=bounds(settings))
    exists = partial(container_exists, database)
    admission = None if tls is None else Admission(tls, exists, relay.allowances, LetIn(tls))
    sockets = Sockets(relay.add_listener, relay.remove_listener, partial(gone, relay, admission))
    host = make_host(settings, state_dir, database, launcher, cgroups, sockets)
    stack.push_async_callback(to_end, host.volume_files.close)
    listeners = HostListeners(launcher, settings.runtime_dir, settings.endpoints, gid)
    return make_parts(host, relay, listeners, private_socket, settings, admission)


def gone(relay: Relay, admission: Admission | None, container_id: int) -> None:
    """A container is being destroyed: nobody speaks in its name any more."""
    relay.forget(container_id)
    if admission is not None:
        admission.let_in.gone(container_id)


def directories(settings: Settings) -> list[Named]:
    """What the daemon writes into."""
    return [
        (settings.state_dir, "--state-dir"),
        (settings.runtime_dir, "--runtime-dir"),
        (settings.uid_claims, "--uid-claims"),
    ]


def bounds(settings: Settings) -> Bounds:
    """What one container may ask of the relay."""
    calls, connections = settings.calls_per_second, settings.connections_per_container
    return Bounds(
        connections,
        Rate(calls, max(calls * CALLS_AT_ONCE_S, LEAST_CALLS_AT_ONCE)),
        Rate(connections, CONNECTIONS_AT_ONCE),
        settings.messages_per_container,
    )


def make_host(
    settings: Settings,
    state_dir: StateDir,
    database: Database,
    launcher: Launcher,
    cgroups: CgroupTree,
    sockets: Sockets,
) -> Host:
    """What the verbs see of this host."""
    uid_ranges = UidRanges(settings.uid_claims, settings.uid_range.first, settings.uid_range.count)
    jails = Jails(launcher, uid_ranges, settings.runtime_dir / FRAME_NAME, f"{state_dir.path}:import")
    exports, imports = HeldFiles[Any](), HeldFiles[Any]()
    return Host(
        database=database,
        state_dir=state_dir,
        launcher=launcher,
        cgroups=cgroups,
        uid_ranges=uid_ranges,
        jails=jails,
        images=Images(database, state_dir, jails),
        volume_files=VolumeFiles(
            state_dir,
            launcher,
            Unlocking(
                launcher, by_process=settings.decrypt_by == "process", luks_iter_time_s=settings.luks_iter_time_s
            ),
        ),
        sockets=sockets,
        output_bytes=lambda ids: output_bytes(state_dir, ids) + exports.stored_bytes(ids) + imports.stored_bytes(ids),
        exports=exports,
        imports=imports,
    )


async def container_exists(database: Database, container_id: int) -> bool:
    """Whether there is a container in whose name somebody may call: one that is not being destroyed."""
    row = await database.read(lambda c: hierarchy.get_container(c, container_id))
    return row is not None and row.state != State.DESTROYING


def make_parts(
    host: Host,
    relay: Relay,
    listeners: HostListeners,
    private_socket: Path,
    settings: Settings,
    admission: Admission | None,
) -> Parts:
    """The verbs, the services on top of them, and what stands before these."""
    tasks = TaskOwner()
    containers = Containers(host, tasks)
    processes = Processes(host, tasks)
    volumes = Volumes(host, tasks)
    lifetimes = Lifetimes(host, containers)
    mounts = VolumeMounts(host, containers.life.held, settings.runtime_dir / FRAME_NAME)
    host.volume_files.places, host.volume_files.users = mounts.places, mounts.users
    checks, packing = VolumeChecks(host), VolumePacking(host, volumes)
    watch = VolumeWatch(host, tasks)
    mounts.opening.on_opened = watch.opened
    keys = VolumeKeys(host, containers.life.held, mounts, tasks)
    raw = RawVolumes(host, containers.life.held)
    copies = VolumeCopies(host, volumes)
    exports, imports = VolumeExports(host, volumes, copies.files), VolumeImports(host, volumes)
    verbs = Verbs(containers, processes, volumes, mounts, checks, keys, raw, packing, copies, exports, imports)
    starts = Starts(settings.starts_per_container, lambda one, calls: relay.allowances.of(one).pay(calls))
    disk_watch = DiskWatch(host.state_dir, host.launcher, host.database)
    system = System(host.cgroups, host.state_dir, disk_watch.state)
    ours = our_services(host, verbs, system, starts)
    health = Health(descriptor.full_name for descriptor, _ in ours)
    table = list(all_served(ours, health))
    resolver = Resolver(host.database)
    return Parts(
        host=host,
        tasks=tasks,
        containers=containers,
        processes=processes,
        volumes=volumes,
        volume_watch=watch,
        copies=copies,
        lifetimes=lifetimes,
        disk_watch=disk_watch,
        relay=relay,
        listeners=listeners,
        health=health,
        interceptor=Interceptor(table, relay.caller, resolver, lifetimes.used, settings.calls_per_container),
        private_socket=private_socket,
        admission=admission,
    )


def answer_on(parts: Parts, sockets: Mapping[Endpoint, socket.socket]) -> None:
    """Hand the host's listening sockets to the relay, those of TCP to what speaks TLS before it."""
    for endpoint, sock in sockets.items():
        if isinstance(endpoint, UnixEndpoint):
            parts.relay.add_host(sock)
        elif parts.admission is not None:
            parts.relay.add(RemoteListener(sock, parts.relay.carry, parts.admission))
        else:
            raise AssertionError(f"{endpoint} without TLS")


@dataclass(frozen=True)
class Verbs:
    """What the services call."""

    containers: Containers
    processes: Processes
    volumes: Volumes
    mounts: VolumeMounts
    checks: VolumeChecks
    keys: VolumeKeys
    raw: RawVolumes
    packing: VolumePacking
    copies: VolumeCopies
    exports: VolumeExports
    imports: VolumeImports


def our_services(host: Host, verbs: Verbs, known: System, starts: Starts) -> list[Service]:
    """The services of the API and what answers each."""
    container = container_service_pb2.DESCRIPTOR.services_by_name["ContainerService"]
    process = process_service_pb2.DESCRIPTOR.services_by_name["ProcessService"]
    image = image_service_pb2.DESCRIPTOR.services_by_name["ImageService"]
    system = system_service_pb2.DESCRIPTOR.services_by_name["SystemService"]
    volume = volume_service_pb2.DESCRIPTOR.services_by_name["VolumeService"]
    every = [method for descriptor in (container, process, image, volume, system) for method in methods(descriptor)]

    def permitted(caller: Caller) -> list[str]:
        return [method.name for method in every if may_call(caller, method)]

    return [
        (container, ContainerService(verbs.containers, starts)),
        (process, ProcessService(verbs.containers, verbs.processes, starts)),
        (image, ImageService(host.images)),
        (volume, volume_service(verbs, starts)),
        (system, SystemService(verbs.containers, known, permitted)),
    ]


def volume_service(verbs: Verbs, starts: Starts) -> Joined:
    """What answers VolumeService: what makes and mounts, what copies, what sends and receives."""
    return Joined(
        VolumeService(
            verbs.containers, verbs.volumes, verbs.mounts, verbs.checks, verbs.keys, verbs.raw, verbs.packing, starts
        ),
        VolumeCopyMethods(verbs.volumes, verbs.copies, starts),
        VolumeTransferMethods(verbs.volumes, verbs.exports, verbs.imports, starts),
    )


def all_served(ours: list[Service], health: Health) -> Iterator[Served]:
    """Every method that is answered, ours and gRPC's own; raises AccessUndeclared."""
    if stale := stale_hosts(descriptor for descriptor, _ in ours):
        raise AccessUndeclared(f"no request has {', '.join(sorted(stale))}")
    services: list[Service] = [*ours, (health_pb2.DESCRIPTOR.services_by_name["Health"], health)]
    reflection = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    names = [*(descriptor.full_name for descriptor, _ in services), reflection.full_name]
    for descriptor, servicer in (*services, (reflection, Reflection(names))):
        yield from served(descriptor, servicer)


async def ensure_default_image(settings: Settings, images: Images) -> None:
    """The image that containers get when none is named; without a busybox there is none, and that is said."""
    found = shutil.which("busybox")
    program = settings.busybox_path or (Path(found) if found else DEFAULT_PROGRAM)
    try:
        await images.ensure_busybox(program)
    except FailedPrecondition as why:
        log.warning("no default image", error=str(why))
