"""opsjobs schema 11

Revision ID: 0c7d5e91b3a4
Revises: c5d20e8b17f3
Create Date: 2026-11-26 19:00:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "0c7d5e91b3a4"
down_revision = "c5d20e8b17f3"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=10, to=11)


def downgrade():
    steps.downgrade(op, since=11, to=10)
