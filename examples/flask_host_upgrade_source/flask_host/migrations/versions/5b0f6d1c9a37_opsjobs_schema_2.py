"""opsjobs schema 2

Revision ID: 5b0f6d1c9a37
Revises: 1f21a556f1ca
Create Date: 2026-11-24 20:02:11.031447

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "5b0f6d1c9a37"
down_revision = "1f21a556f1ca"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=1, to=2)


def downgrade():
    steps.downgrade(op, since=2, to=1)
