"""Images: how many entries their tars had, and which extended attributes were left out."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From the one before."""
    op.add_column("image_contents", sa.Column("entries", sa.BigInteger, nullable=True))
    op.add_column(
        "image_contents", sa.Column("skipped_attributes", sa.JSON, nullable=False, server_default=sa.text("'{}'"))
    )
