"""opsjobs schema 25

Revision ID: d81c4f6a20e9
Revises: c3e19a70d4f8
Create Date: 2026-11-27 22:10:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "d81c4f6a20e9"
down_revision = "c3e19a70d4f8"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=24, to=25)


def downgrade():
    steps.downgrade(op, since=25, to=24)
