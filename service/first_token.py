"""``python -m binworks.service.first_token --home DIR``: make the job database and let the administrator in.

For whoever starts API and driver by himself, as the chart does; `binworks up` does it on its own. It may be run again,
and by several at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from binworks.service import tokens
from binworks.service.database import Database
from binworks.service.running import OWNER, ensure_token
from binworks.service.settings import Settings
from binworks.tensors.errors import BinworksError, RequestError

SHORTEST = 24
LIFETIME = 10 * tokens.YEAR_SECONDS
"""Of a token that is given: it ends when the secret is changed, not by itself."""


def admit(settings: Settings, path: Path) -> None:
    """Let the token in a file in, as the administrator's; those that were given before end.

    Raises
    ------
    RequestError
        Code ``bad-token-file``.
    """
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if len(token) < SHORTEST or not token.isascii() or len(token.split()) != 1:
        raise RequestError(
            f"The file must hold a token alone: {SHORTEST} or more letters, digits and signs.",
            code="bad-token-file",
            where=str(path),
            hint="For example: echo bw_$(openssl rand -hex 32)",
        )
    database = Database(settings.database_url)
    try:
        database.create_tables()
        now = time.time()
        if tokens.check(database, token, now=now) is None:
            _replace(database, token, now)
    finally:
        database.close()


def _replace(database: Database, token: str, now: float) -> None:
    label = "given at the start"
    for before in tokens.listed(database, now=now, owner=OWNER):
        if before.label == label:
            tokens.revoke(database, before.id)
    try:
        tokens.create(
            database, OWNER, tokens.SCOPES["admin"], now=now, lifetime=LIFETIME, label=label, token=token
        )
    except IntegrityError:  # another has just done it
        return


def main() -> None:
    """Do it for a home."""
    parser = argparse.ArgumentParser(description="Make the job database, and let the administrator in.")
    parser.add_argument("--home", type=Path, required=True, help="folder of the service")
    parser.add_argument(
        "--token-file", type=Path, help="holds the administrator's token; default: make one, <home>/token"
    )
    given = parser.parse_args()
    try:
        settings = Settings.load(given.home)
        if given.token_file is None:
            ensure_token(settings)
        else:
            admit(settings, given.token_file)
    except BinworksError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
