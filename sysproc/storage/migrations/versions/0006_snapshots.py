"""Volumes: of a snapshot, what it is one of, and when it was taken.

A column is added only: a table that SQLite builds anew would lose its index of names.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From the one before."""
    op.add_column("volumes", sa.Column("snapshot", sa.JSON, nullable=True))
