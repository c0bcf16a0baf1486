"""opsjobs schema 21

Revision ID: 7a1d4e83b5c2
Revises: b7d2e4916a3c
Create Date: 2026-11-27 08:40:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "7a1d4e83b5c2"
down_revision = "b7d2e4916a3c"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=20, to=21)


def downgrade():
    steps.downgrade(op, since=21, to=20)
