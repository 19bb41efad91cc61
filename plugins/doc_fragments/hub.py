"""What modules that use a JupyterHub have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """`jhok.lab.hub` for all of them, `jhok.lab.hub.visitor` for those that go there as one user."""

    DOCUMENTATION = r"""
requirements: [requests, websocket-client]
attributes:
  check_mode:
    support: none
    description: It starts servers, so it is skipped in check mode.
options:
  url:
    description: Address of the hub, for example V(http://172.16.0.100:30080).
    type: str
    required: true
  service_token:
    description: >-
      API token of a hub service that may list, create and delete the users that the module makes use of, and their
      servers and tokens.
    type: str
    required: true
"""

    VISITOR = r"""
options:
  user:
    description: Name of the user who goes there. No person may have it; the record is removed at the end.
    type: str
    default: jhok-verify
  password:
    description: Password for the login page's form. Without it the user gets in with an API token.
    type: str
    default: ""
  start_timeout:
    description: Seconds until a server must be ready.
    type: int
    default: 300
  stop_timeout:
    description: Seconds until a server must be gone.
    type: int
    default: 90
"""
