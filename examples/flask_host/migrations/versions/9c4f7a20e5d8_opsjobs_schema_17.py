"""opsjobs schema 17

Revision ID: 9c4f7a20e5d8
Revises: 6e0a93d5c71b
Create Date: 2026-11-27 02:30:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "9c4f7a20e5d8"
down_revision = "6e0a93d5c71b"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=16, to=17)


def downgrade():
    steps.downgrade(op, since=17, to=16)
