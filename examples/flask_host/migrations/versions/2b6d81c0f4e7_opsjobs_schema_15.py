"""opsjobs schema 15

Revision ID: 2b6d81c0f4e7
Revises: 7e3b9c04d5f8
Create Date: 2026-11-26 22:00:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "2b6d81c0f4e7"
down_revision = "7e3b9c04d5f8"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=14, to=15)


def downgrade():
    steps.downgrade(op, since=15, to=14)
