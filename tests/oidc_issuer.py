"""An OpenID Connect issuer: a real HTTP server that publishes real keys, and signs with them."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

Key = RSAKey | ECKey | OKPKey
AUDIENCE = "binworks"


class LocalIssuer:
    """Publishes ``keys``; ``requests`` counts what was asked of it; silent as long as ``answers`` is not set."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.published: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.document: dict[str, Any] = {}
        self.broken = False
        self.answers = threading.Event()
        self.answers.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests.append(self.path)
                issuer.answers.wait(60)
                answers = {"/.well-known/openid-configuration": issuer.document, "/keys": issuer.key_set()}
                if issuer.broken or self.path not in answers:
                    self.send_error(500)
                    return
                body = json.dumps(answers[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.document = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.add("first", RSAKey.generate_key(2048))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def key_set(self) -> dict[str, Any]:
        return {"keys": self.published}

    def add(self, key_id: str, key: Key) -> None:
        self.keys[key_id] = key
        self.published.append({**key.as_dict(private=False), "kid": key_id, "use": "sig"})

    def rotate(self, key_id: str) -> None:
        """Publish a new key alone."""
        self.keys, self.published = {}, []
        self.add(key_id, RSAKey.generate_key(2048))

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(time.time())
        common = {"iss": self.url, "aud": AUDIENCE, "sub": "carol", "iat": now, "exp": now + 300}
        given = {**common, "roles": ["analyst"], **changed}
        return {name: value for name, value in given.items() if value is not None}

    def token(self, key_id: str = "first", algorithm: str = "RS256", **changed: Any) -> str:
        header = {"alg": algorithm, "kid": key_id}
        return jwt.encode(header, self.claims(**changed), self.keys[key_id], algorithms=[algorithm])

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
