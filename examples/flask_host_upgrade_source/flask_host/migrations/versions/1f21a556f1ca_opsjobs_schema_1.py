"""opsjobs schema 1

Revision ID: 1f21a556f1ca
Revises: c6fa2a7a2bde
Create Date: 2026-11-24 17:53:43.423459

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "1f21a556f1ca"
down_revision = "c6fa2a7a2bde"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=0, to=1)


def downgrade():
    steps.downgrade(op, since=1, to=0)
