"""opsjobs schema 16

Revision ID: 6e0a93d5c71b
Revises: 2b6d81c0f4e7
Create Date: 2026-11-26 22:00:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "6e0a93d5c71b"
down_revision = "2b6d81c0f4e7"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=15, to=16)


def downgrade():
    steps.downgrade(op, since=16, to=15)
