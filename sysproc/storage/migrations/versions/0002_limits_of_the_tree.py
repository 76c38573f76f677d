"""Limits that the service holds (descendants, depth, storage), lifetimes, who may use the API inside, delegation.

Columns are added only: no table is rebuilt, no row changes its meaning.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0001."""
    for column in (
        sa.Column("descendants", sa.Integer),
        sa.Column("depth", sa.Integer),
        sa.Column("storage_bytes", sa.BigInteger),
        sa.Column("overcommit", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("ttl_s", sa.Float),
        sa.Column("idle_timeout_s", sa.Float),
        sa.Column("expires_at", sa.Float),
        sa.Column("api_users", sa.Text, nullable=False, server_default=""),
        sa.Column("delegate", sa.Boolean, nullable=False, server_default=sa.false()),
    ):
        op.add_column("containers", column)
