"""Tells people of incidents: a place to start, and no policy for production.

`flask opsjobs install --escalation` wrote this file from starter 1; edit it. A later `install` says what has
changed in the starter since, and leaves this file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class HostEscalation:
    """Sends nothing until you change it: each call fails, and the page of the incident says so.

    An exception fails the attempt, which is made again, at most five times in all.
    """

    def escalate(self, facts: Mapping[str, Any]) -> str | None:
        """Tell of `facts`; return a reference, such as the number of a ticket, or None.

        It has 30 seconds, in a process of its own. It may be called again for one event, for example when
        that process was killed: `facts["key"]` is the same then. `facts["event"]` is `opened`, `flapping`,
        `reminded`, `resolved` or `repaired`; `facts["title"]`, `facts["why"]` and `facts["path"]` say what is
        wrong and where its page is. With a webhook:

            body = json.dumps(dict(facts)).encode()
            request = Request(PAGER_URL, body, {"Content-Type": "application/json"})
            with urlopen(request, timeout=20) as answer:
                return answer.read(200).decode()
        """
        raise NotImplementedError("opsjobs_escalation.py sends nothing yet: edit it")
