"""The tables, as SQLAlchemy Core metadata. The migrations lead here; a test compares the two.

    containers ──parent_id──▶ containers        one row a container, from the intention to the last file removed
        └─ image_digest ──▶ image_contents      what its root is a copy of
    images ── digest ──▶ image_contents         names of images; several may stand for the same content
    volumes ── owner_id ──▶ containers          one row a volume, until its file is removed; NULL: the host's
    requests                                    answers by (caller, method, request_id), 24 hours
    events                                      every change, with the revision of its transaction

64-bit ids are TEXT of 16 hex digits: SQLite has no unsigned integers. Times are seconds since 1970 (REAL).
"""

import sqlalchemy as sa

METADATA = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

IMAGE_CONTENTS = sa.Table(
    "image_contents",
    METADATA,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("content_bytes", sa.BigInteger, nullable=False),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False),
    sa.Column("root_bytes", sa.BigInteger, nullable=False),
    sa.Column("skipped_devices", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    # Of the tar; NULL: nobody counted.
    sa.Column("entries", sa.BigInteger, nullable=True),
    # How often, by name.
    sa.Column("skipped_attributes", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
)

IMAGES = sa.Table(
    "images",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, sa.ForeignKey("image_contents.digest"), nullable=False, index=True),
    sa.Column("created_at", sa.Float, nullable=False),
)

CONTAINERS = sa.Table(
    "containers",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("parent_id", sa.Text, sa.ForeignKey("containers.id"), nullable=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("hostname", sa.Text, nullable=False),
    sa.Column("image_name", sa.Text, nullable=False),
    sa.Column("image_digest", sa.Text, sa.ForeignKey("image_contents.digest"), nullable=False, index=True),
    sa.Column("memory_bytes", sa.BigInteger),
    sa.Column("cpu_millis", sa.Integer),
    sa.Column("pids", sa.Integer),
    sa.Column("root_bytes", sa.BigInteger, nullable=False),
    sa.Column("environment", sa.LargeBinary, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("exit_code", sa.Integer),
    sa.Column("exit_signal", sa.Integer),
    sa.Column("oom_killed", sa.Boolean, nullable=False),
    sa.Column("uid_base", sa.BigInteger),
    sa.Column("init_pid", sa.Integer),
    sa.Column("init_start", sa.BigInteger),
    sa.Column("keeper_pid", sa.Integer),
    sa.Column("keeper_start", sa.BigInteger),
    sa.Column("userns_ino", sa.BigInteger),
    sa.Column("mntns_ino", sa.BigInteger),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("stopped_at", sa.Float),
    sa.Column("created_revision", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("descendants", sa.Integer),
    sa.Column("depth", sa.Integer),
    sa.Column("storage_bytes", sa.BigInteger),
    sa.Column("overcommit", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("ttl_s", sa.Float),
    sa.Column("idle_timeout_s", sa.Float),
    sa.Column("expires_at", sa.Float),
    sa.Column("api_users", sa.Text, nullable=False, server_default=""),
    sa.Column("delegate", sa.Boolean, nullable=False, server_default=sa.false()),
)
# Two unnamed siblings are fine, two of one name are not; the top of the tree has no parent, and NULLs differ.
sa.Index(
    "uq_containers_siblings",
    sa.func.coalesce(CONTAINERS.c.parent_id, ""),
    CONTAINERS.c.name,
    unique=True,
    sqlite_where=CONTAINERS.c.name != "",
)
sa.Index("ix_containers_parent_id", CONTAINERS.c.parent_id)
sa.Index("ix_containers_created_revision", CONTAINERS.c.created_revision)

VOLUMES = sa.Table(
    "volumes",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    # Only what is being deleted outlives its owner.
    sa.Column("owner_id", sa.Text, sa.ForeignKey("containers.id", ondelete="SET NULL"), nullable=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("filesystems", sa.JSON, nullable=False),
    sa.Column("on_destroy", sa.Text, nullable=False),
    sa.Column("overcommit", sa.Boolean, nullable=False),
    sa.Column("origin", sa.Text, nullable=False, server_default="made"),
    sa.Column("encryption", sa.Text, nullable=False, server_default="none"),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("grown_from", sa.BigInteger),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("created_revision", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    # Of a snapshot: of what, and when (`sysproc.storage.volumes.SnapshotOf`).
    sa.Column("snapshot", sa.JSON(none_as_null=True), nullable=True),
    sa.CheckConstraint("size_bytes > 0", name="ck_volumes_size_bytes"),
    sa.CheckConstraint("on_destroy IN ('delete', 'reparent')", name="ck_volumes_on_destroy"),
    sa.CheckConstraint("state IN ('creating', 'ready', 'deleting')", name="ck_volumes_state"),
)
# Two volumes of one owner have two names; one that is being deleted has none any more.
sa.Index(
    "uq_volumes_names",
    sa.func.coalesce(VOLUMES.c.owner_id, ""),
    VOLUMES.c.name,
    unique=True,
    sqlite_where=VOLUMES.c.state != "deleting",
)
sa.Index("ix_volumes_owner_id", VOLUMES.c.owner_id)
sa.Index("ix_volumes_created_revision", VOLUMES.c.created_revision)

REQUESTS = sa.Table(
    "requests",
    METADATA,
    sa.Column("caller", sa.Text, primary_key=True),
    sa.Column("method", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("answer", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
)

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, index=True),
    sa.Column("data", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)
