"""The first schema: containers, images, requests, events.

Written out, not taken from `sysproc.storage.schema`: what this step makes must stay as it was.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From nothing."""
    _images()
    _containers()
    op.create_table(
        "requests",
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("caller", "method", "request_id", name="pk_requests"),
    )
    op.create_index("ix_requests_created_at", "requests", ["created_at"])
    op.create_table(
        "events",
        sa.Column("revision", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_subject", "events", ["subject"])


def _images() -> None:
    op.create_table(
        "image_contents",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("content_bytes", sa.BigInteger, nullable=False),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sa.Column("root_bytes", sa.BigInteger, nullable=False),
        sa.Column("skipped_devices", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_image_contents"),
    )
    op.create_table(
        "images",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_images"),
        sa.ForeignKeyConstraint(["digest"], ["image_contents.digest"], name="fk_images_digest"),
    )
    op.create_index("ix_images_digest", "images", ["digest"])


def _containers() -> None:
    op.create_table(
        "containers",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("hostname", sa.Text, nullable=False),
        sa.Column("image_name", sa.Text, nullable=False),
        sa.Column("image_digest", sa.Text, nullable=False),
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
        sa.PrimaryKeyConstraint("id", name="pk_containers"),
        sa.ForeignKeyConstraint(["parent_id"], ["containers.id"], name="fk_containers_parent_id"),
        sa.ForeignKeyConstraint(["image_digest"], ["image_contents.digest"], name="fk_containers_image_digest"),
    )
    op.create_index("ix_containers_image_digest", "containers", ["image_digest"])
    op.create_index("ix_containers_parent_id", "containers", ["parent_id"])
    op.create_index("ix_containers_created_revision", "containers", ["created_revision"])
    op.create_index(
        "uq_containers_siblings",
        "containers",
        [sa.text("coalesce(parent_id, '')"), "name"],
        unique=True,
        sqlite_where=sa.text("name != ''"),
    )
