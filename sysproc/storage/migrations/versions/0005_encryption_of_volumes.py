"""Volumes: what of them is encrypted; nothing of those that there are. No key, and nothing made of one, is recorded.

A column is added only: a table that SQLite builds anew would lose its index of names.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0004."""
    op.add_column("volumes", sa.Column("encryption", sa.Text, nullable=False, server_default="none"))
