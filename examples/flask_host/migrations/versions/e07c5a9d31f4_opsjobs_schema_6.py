"""opsjobs schema 6

Revision ID: e07c5a9d31f4
Revises: b42d7f90c1e8
Create Date: 2026-11-26 09:35:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "e07c5a9d31f4"
down_revision = "b42d7f90c1e8"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=5, to=6)


def downgrade():
    steps.downgrade(op, since=6, to=5)
