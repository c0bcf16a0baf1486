"""Creates the extensions of the shop; `create_app` joins them to the app."""

from __future__ import annotations

from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs

from .opsjobs_access import HostAccess
from .opsjobs_display import HostDisplay

db = SQLAlchemy()
migrate = Migrate()
login = LoginManager()
opsjobs = OpsJobs(access=HostAccess(), display=HostDisplay())
