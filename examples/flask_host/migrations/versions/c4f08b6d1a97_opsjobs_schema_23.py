"""opsjobs schema 23

Revision ID: c4f08b6d1a97
Revises: e5a90c37f1d8
Create Date: 2026-11-27 12:00:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "c4f08b6d1a97"
down_revision = "e5a90c37f1d8"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=21, to=23)


def downgrade():
    steps.downgrade(op, since=23, to=21)
