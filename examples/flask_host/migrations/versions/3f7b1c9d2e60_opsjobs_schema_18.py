"""opsjobs schema 18

Revision ID: 3f7b1c9d2e60
Revises: 9c4f7a20e5d8
Create Date: 2026-11-27 05:30:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "3f7b1c9d2e60"
down_revision = "9c4f7a20e5d8"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=17, to=18)


def downgrade():
    steps.downgrade(op, since=18, to=17)
