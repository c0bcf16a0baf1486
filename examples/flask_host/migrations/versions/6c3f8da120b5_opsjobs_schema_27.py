"""opsjobs schema 27

Revision ID: 6c3f8da120b5
Revises: 5b2e7c90f1a4
Create Date: 2026-11-28 04:50:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "6c3f8da120b5"
down_revision = "5b2e7c90f1a4"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=26, to=27)


def downgrade():
    steps.downgrade(op, since=27, to=26)
