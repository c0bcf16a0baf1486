"""opsjobs schema 14

Revision ID: 7e3b9c04d5f8
Revises: 5d2f90b7a1ce
Create Date: 2026-11-26 20:00:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "7e3b9c04d5f8"
down_revision = "5d2f90b7a1ce"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=13, to=14)


def downgrade():
    steps.downgrade(op, since=14, to=13)
