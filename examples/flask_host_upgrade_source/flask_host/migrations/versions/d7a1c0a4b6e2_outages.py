"""outages

Revision ID: d7a1c0a4b6e2
Revises: 91cff2e1a20b
Create Date: 2026-11-25 17:50:12.332810

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "d7a1c0a4b6e2"
down_revision = "91cff2e1a20b"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "outage",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_outage_host"), "outage", ["host"], unique=False)


def downgrade():
    op.drop_index(op.f("ix_outage_host"), table_name="outage")
    op.drop_table("outage")
