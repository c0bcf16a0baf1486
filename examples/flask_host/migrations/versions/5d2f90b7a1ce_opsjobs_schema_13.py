"""opsjobs schema 13

Revision ID: 5d2f90b7a1ce
Revises: d95f1c28ea63
Create Date: 2026-11-26 19:00:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "5d2f90b7a1ce"
down_revision = "d95f1c28ea63"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=12, to=13)


def downgrade():
    steps.downgrade(op, since=13, to=12)
