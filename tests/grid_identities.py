"""A small grid for tests: an authority for certificates of hosts and proxies of users, an issuer of tokens."""

from __future__ import annotations

import datetime as dt
import json
import os
import sqlite3
import subprocess
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import ECKey

DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)
INHERIT_ALL = bytes.fromhex("300c300a06082b06010505071501")
"""The ProxyCertInfo of RFC 3820 for a proxy that may all that its user may."""
PROXY_INFO = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes) -> Path:
    """Write a file that its owner alone can read, in one step, as a renewal does."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(data)
    return draft.replace(path)


class Authority:
    """Signs certificates; `folder` is what X509_CERT_DIR names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._key = rsa.generate_private_key(65537, 2048)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        usage = _usage(sign=True)
        self._certificate = self._signed(self._name, self._key, [(constraints, True), (usage, True)], HOUR)
        self.certificate = _write(
            folder / "ca.pem", self._certificate.public_bytes(serialization.Encoding.PEM)
        )
        self.certificate.chmod(0o644)
        for option in ("-subject_hash", "-subject_hash_old"):
            command = ["openssl", "x509", "-noout", option, "-in", str(self.certificate)]
            name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            (folder / f"{name}.0").symlink_to("ca.pem")

    def _signed(
        self,
        subject: x509.Name,
        key: rsa.RSAPrivateKey,
        extensions: list[tuple[x509.ExtensionType, bool]],
        valid: dt.timedelta,
        issuer: tuple[x509.Name, rsa.RSAPrivateKey] | None = None,
        serial: int | None = None,
    ) -> x509.Certificate:
        name, signer = issuer or (self._name, self._key)
        end = dt.datetime.now(dt.UTC) + valid
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(end - 2 * DAY)
            .not_valid_after(end)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256())

    def host(self, folder: Path, name: str = "localhost") -> tuple[Path, Path]:
        """Write the certificate of a server and its key."""
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        certificate = self._signed(subject, key, [(names, False), (_usage(), True)], HOUR)
        data = certificate.public_bytes(serialization.Encoding.PEM)
        return _write(folder / "host.pem", data), _write(folder / "host.key", _pem(key))

    def proxy(self, user: str, path: Path, valid: dt.timedelta = HOUR) -> str:
        """Write a proxy: its certificate, its key, the certificate of the user; return his name on the grid."""
        user_key, key = (rsa.generate_private_key(65537, 2048) for _ in range(2))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)])
        certificate = self._signed(subject, user_key, [(_usage(), True)], HOUR)
        serial = x509.random_serial_number() >> 96
        last = x509.NameAttribute(NameOID.COMMON_NAME, str(serial))
        info = x509.UnrecognizedExtension(PROXY_INFO, INHERIT_ALL)
        proxy = self._signed(
            x509.Name([*subject, last]),
            key,
            [(_usage(), True), (info, True)],
            valid,
            (subject, user_key),
            serial,
        )
        pem = serialization.Encoding.PEM
        _write(path, proxy.public_bytes(pem) + _pem(key) + certificate.public_bytes(pem))
        return f"/CN={user}"


def _usage(*, sign: bool = False) -> x509.KeyUsage:
    others = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )
    return x509.KeyUsage(
        digital_signature=True, key_encipherment=not sign, key_cert_sign=sign, crl_sign=sign, **others
    )


class Issuer:
    """Signs bearer tokens for what lies below /data.

    Parameters
    ----------
    folder : Path
        Of the server's settings; `cache` below it is its XDG_CACHE_HOME, where it finds the issuer's keys, so that it
        need not ask for them.
    """

    address = "https://issuer.example"
    audience = "https://localhost"

    def __init__(self, folder: Path) -> None:
        self._key = ECKey.generate_key("P-256", {"kid": "first", "alg": "ES256", "use": "sig"})
        self.cache = folder / "cache"
        (self.cache / "scitokens").mkdir(parents=True)
        now = int(time.time())
        known = {"jwks": {"keys": [self._key.as_dict(private=False)]}}
        known |= {"expires": now + 4 * 86_400, "next_update": now + 86_400}
        with sqlite3.connect(self.cache / "scitokens" / "scitokens_cpp.sqllite") as database:
            database.execute(
                "CREATE TABLE keycache (issuer text UNIQUE PRIMARY KEY NOT NULL, keys text NOT NULL)"
            )
            database.execute("INSERT INTO keycache VALUES (?, ?)", (self.address, json.dumps(known)))
        database.close()
        self.settings = folder / "scitokens.cfg"
        issuer = f"[Issuer Test]\nissuer = {self.address}\nbase_path = /data\nmap_subject = True\n"
        self.settings.write_text(f"[Global]\naudience = {self.audience}\n\n{issuer}")

    def token(self, user: str, path: Path, scope: str, valid: dt.timedelta = HOUR) -> str:
        """Write a token that lets a user read below a path; return it."""
        now = int(time.time())
        end = now + int(valid.total_seconds())
        claims = {
            "iss": self.address,
            "sub": user,
            "aud": self.audience,
            "wlcg.ver": "1.0",
            "jti": f"{user}{now}",
        }
        claims |= {"iat": now - 7200, "nbf": now - 7200, "exp": end, "scope": f"storage.read:{scope}"}
        token = jwt.encode({"alg": "ES256", "kid": "first"}, claims, self._key)
        _write(path, token.encode() + b"\n")
        return token
