"""opsjobs schema 20

Revision ID: b7d2e4916a3c
Revises: 3f7b1c9d2e60
Create Date: 2026-11-27 08:45:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "b7d2e4916a3c"
down_revision = "3f7b1c9d2e60"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=18, to=20)


def downgrade():
    steps.downgrade(op, since=20, to=18)
