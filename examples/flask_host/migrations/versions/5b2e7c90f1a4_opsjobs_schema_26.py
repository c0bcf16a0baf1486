"""opsjobs schema 26

Revision ID: 5b2e7c90f1a4
Revises: d81c4f6a20e9
Create Date: 2026-11-28 01:10:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "5b2e7c90f1a4"
down_revision = "d81c4f6a20e9"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=25, to=26)


def downgrade():
    steps.downgrade(op, since=26, to=25)
