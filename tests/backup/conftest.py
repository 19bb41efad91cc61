from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from lost_site import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    given = os.environ.get("JHOK_BACKUP_SITE")
    if not given:
        pytest.fail("JHOK_BACKUP_SITE names no lab: molecule/backup sets it.", pytrace=False)
    return Lab(**json.loads(Path(given).read_text()))
