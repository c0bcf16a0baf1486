"""prices

Revision ID: b42d7f90c1e8
Revises: 8a41f0c6e9b3
Create Date: 2026-11-26 06:21:07.310562

"""

import sqlalchemy as sa
from alembic import op

# revision identifiers, used by Alembic.
revision = "b42d7f90c1e8"
down_revision = "8a41f0c6e9b3"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "prices",
        sa.Column("article", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cents", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("article"),
    )
    op.create_table(
        "price_lists",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade():
    op.drop_table("price_lists")
    op.drop_table("prices")
