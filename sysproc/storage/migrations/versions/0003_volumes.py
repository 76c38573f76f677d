"""Volumes: one table, which refers to containers as owners.

Nothing of what there is changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0002."""
    op.create_table(
        "volumes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("filesystems", sa.JSON, nullable=False),
        sa.Column("on_destroy", sa.Text, nullable=False),
        sa.Column("overcommit", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("grown_from", sa.BigInteger),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("created_revision", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_volumes"),
        sa.ForeignKeyConstraint(["owner_id"], ["containers.id"], name="fk_volumes_owner_id", ondelete="SET NULL"),
        sa.CheckConstraint("size_bytes > 0", name="ck_volumes_size_bytes"),
        sa.CheckConstraint("on_destroy IN ('delete', 'reparent')", name="ck_volumes_on_destroy"),
        sa.CheckConstraint("state IN ('creating', 'ready', 'deleting')", name="ck_volumes_state"),
    )
    op.create_index("ix_volumes_owner_id", "volumes", ["owner_id"])
    op.create_index("ix_volumes_created_revision", "volumes", ["created_revision"])
    op.create_index(
        "uq_volumes_names",
        "volumes",
        [sa.text("coalesce(owner_id, '')"), "name"],
        unique=True,
        sqlite_where=sa.text("state != 'deleting'"),
    )
