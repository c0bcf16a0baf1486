"""opsjobs schema 12

Revision ID: d95f1c28ea63
Revises: 0c7d5e91b3a4
Create Date: 2026-11-26 19:05:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "d95f1c28ea63"
down_revision = "0c7d5e91b3a4"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=11, to=12)


def downgrade():
    steps.downgrade(op, since=12, to=11)
