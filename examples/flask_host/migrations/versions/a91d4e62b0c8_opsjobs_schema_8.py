"""opsjobs schema 8

Revision ID: a91d4e62b0c8
Revises: f2b6c81d7e45
Create Date: 2026-11-26 16:50:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "a91d4e62b0c8"
down_revision = "f2b6c81d7e45"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=7, to=8)


def downgrade():
    steps.downgrade(op, since=8, to=7)
