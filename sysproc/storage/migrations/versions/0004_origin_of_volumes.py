"""Volumes: where what is in them comes from; all that there are were made by our mkfs.

A column is added only: a table that SQLite builds anew would lose its index of names.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0003."""
    op.add_column("volumes", sa.Column("origin", sa.Text, nullable=False, server_default="made"))
