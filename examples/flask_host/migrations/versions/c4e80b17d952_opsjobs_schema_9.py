"""opsjobs schema 9

Revision ID: c4e80b17d952
Revises: a91d4e62b0c8
Create Date: 2026-11-26 18:50:00.000000

"""

from alembic import op

from flask_opsjobs.install import steps

# revision identifiers, used by Alembic.
revision = "c4e80b17d952"
down_revision = "a91d4e62b0c8"
branch_labels = None
depends_on = None


def upgrade():
    steps.upgrade(op, since=8, to=9)


def downgrade():
    steps.downgrade(op, since=9, to=8)
