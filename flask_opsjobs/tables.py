"""Every model, imported once, so that `Base.metadata` is complete."""

from .db import Base
from .jobs import models as jobs
from .lifeline import models as lifeline
from .queues import models as queues

metadata = Base.metadata

__all__ = ["jobs", "lifeline", "metadata", "queues"]
