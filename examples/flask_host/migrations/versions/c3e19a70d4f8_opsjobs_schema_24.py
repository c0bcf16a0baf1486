"""opsjobs schema 24

Revision ID: c3e19a70d4f8
Revises: c4f08b6d1a97
Create Date: 2026-11-27 12:50:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "c3e19a70d4f8"
down_revision = "c4f08b6d1a97"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=23, to=24)


def downgrade():
    steps.downgrade(op, since=24, to=23)
