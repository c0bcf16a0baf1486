"""Makes a small shop with background jobs, the example host of flask_opsjobs. Start reading here."""

from __future__ import annotations

import logging
from pathlib import Path

from flask import Flask

from . import feeder, pages, people, tasks  # noqa: F401 - tasks and people declare themselves
from .extensions import db, login, migrate, opsjobs


def create_app(**config: object) -> Flask:
    """The app. Environment variables with the prefix `FLASK_` set any key of its config."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="of the demo, and no secret",
        SQLALCHEMY_DATABASE_URI="postgresql+psycopg:///flask_host",
        OPSJOBS_REDIS_URL="redis://localhost:6379/0",
        # The browser does not send the cookie with forms that other sites post here.
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,
        # The bank signs its webhooks with it.
        BANK_KEY="of the demo, and no secret",
        OPSJOBS_ENVIRONMENT="demo",
        OPSJOBS_HELP_URL="/tour",
        # The shop shows these troubles on purpose.
        OPSJOBS_DOCTOR_SILENCE=[
            "lifeline.incidents",
            "lifeline.operations",
            "lifeline.callbacks",
            "signals.ambiguous",
            "rq.plain_workers",
        ],
    )
    app.config.from_prefixed_env()
    app.config.update(config)
    # Log messages of jobs from INFO on are stored with their attempt.
    logging.getLogger("shop").setLevel(logging.INFO)
    db.init_app(app)
    migrate.init_app(app, db, directory=str(Path(app.root_path) / "migrations"))
    login.init_app(app)
    opsjobs.init_app(app)
    app.register_blueprint(pages.shop)
    feeder.add_commands(app)
    return app
