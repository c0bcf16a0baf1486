"""opsjobs schema 5

Revision ID: 3c8e2b7f4d15
Revises: d7a1c0a4b6e2
Create Date: 2026-11-26 04:18:02.517364

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "3c8e2b7f4d15"
down_revision = "d7a1c0a4b6e2"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=4, to=5)


def downgrade():
    steps.downgrade(op, since=5, to=4)
