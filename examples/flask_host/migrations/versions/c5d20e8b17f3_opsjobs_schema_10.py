"""opsjobs schema 10

Revision ID: c5d20e8b17f3
Revises: c4e80b17d952
Create Date: 2026-11-26 18:55:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "c5d20e8b17f3"
down_revision = "c4e80b17d952"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=9, to=10)


def downgrade():
    steps.downgrade(op, since=10, to=9)
