"""opsjobs schema 7

Revision ID: f2b6c81d7e45
Revises: e07c5a9d31f4
Create Date: 2026-11-26 16:30:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "f2b6c81d7e45"
down_revision = "e07c5a9d31f4"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=6, to=7)


def downgrade():
    steps.downgrade(op, since=7, to=6)
