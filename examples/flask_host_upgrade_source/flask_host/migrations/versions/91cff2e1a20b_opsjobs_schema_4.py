"""opsjobs schema 4

Revision ID: 91cff2e1a20b
Revises: 5b0f6d1c9a37
Create Date: 2026-11-25 00:36:37.675667

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "91cff2e1a20b"
down_revision = "5b0f6d1c9a37"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=2, to=4)


def downgrade():
    steps.downgrade(op, since=4, to=2)
