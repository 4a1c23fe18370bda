"""Log in by OpenID Connect: the authorization code flow with PKCE (OpenID Connect Core 3.1, RFC 7636), by Authlib."""

from __future__ import annotations

import hmac
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from authlib.integrations.base_client import BaseApp, OAuth2Mixin, OAuthError, OpenIDMixin
from authlib.integrations.requests_client import OAuth2Session
from joserfc.errors import JoseError

from focalis.device.config import OidcSettings
from focalis.device.records import Role
from focalis.device.web.auth import ATTEMPTS_SECONDS, ROLES, LoginLimit
from focalis.errors import UsageError

CALLBACK = "/login/oidc/callback"
_WAIT_SECONDS, _LEEWAY_SECONDS = 5, 60
# all with a public key: a token without a signature, or signed by a shared secret, is none of the provider's
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
# what may stand in a report's Person Name (PS3.5 6.2) and in a log
_NAME = re.compile(r"[^\W_][\w .@'+-]{0,36}")
_CODE = re.compile(r"[a-z_]{1,40}")


class SignOnError(Exception):
    """Nobody was logged in; the text is for that person.

    Attributes:
        status: of the answer.
        who: whom the provider named; empty if it named nobody.
    """

    def __init__(self, text: str, status: int = 401, who: str = "") -> None:
        super().__init__(text)
        self.status, self.who = status, who


@dataclass(frozen=True)
class Person:
    """Whom the provider has logged in: name on the page, what it is known by there, and role."""

    name: str
    subject: str
    role: Role


@dataclass(frozen=True)
class _Attempt:
    """A login under way; the browser holds its key."""

    state: str
    nonce: str
    verifier: str
    began: float


class _Client(OAuth2Mixin, OpenIDMixin, BaseApp):  # type: ignore[misc]
    client_cls = OAuth2Session


class Provider:
    """The provider of focalis.toml. It is asked anew for each login, so that its keys and addresses may change."""

    def __init__(self, settings: OidcSettings) -> None:
        """Read the secret; the provider is not asked yet.

        Raises:
            UsageError: there is no secret.
        """
        self.settings = settings
        self.limit = LoginLimit()
        self._secret = _secret_of(settings)
        self._attempts: dict[str, _Attempt] = {}
        self._lock = threading.Lock()

    def begin(self) -> tuple[str, str]:
        """Begin a login: its key for the browser, and the provider's address to go to.

        Raises:
            SignOnError: the provider cannot be reached, or is another one.
        """
        wanted = self._connect().create_authorization_url(self._callback)
        key, now = secrets.token_urlsafe(32), time.monotonic()
        with self._lock:
            self._attempts = {name: each for name, each in self._attempts.items() if _lives(each, now)}
            self._attempts[key] = _Attempt(wanted["state"], wanted["nonce"], wanted["code_verifier"], now)
        return key, wanted["url"]

    def finish(self, key: str, state: str, code: str, refused: str) -> Person:
        """End a login, whatever comes of it.

        Args:
            key: what the browser was given.
            state, code, refused: what the provider sent back with it: state, code and error.

        Raises:
            SignOnError: it is not this browser's, or too old; the provider refused it, or its ID token is not good; or
                the person has no role here.
        """
        with self._lock:
            attempt = self._attempts.pop(key, None)
        name = self.settings.name
        if (
            attempt is None
            or not _lives(attempt, time.monotonic())
            or not hmac.compare_digest(attempt.state.encode(), state.encode())
        ):
            raise SignOnError("This login is out of date, or began in another browser; log in again.")
        if refused or not code:
            raise SignOnError(f"{name} did not log you in ({_told(refused)}).")
        client = self._connect()
        try:
            token = client.fetch_access_token(self._callback, code=code, code_verifier=attempt.verifier)
            claims = client.parse_id_token(
                token,
                attempt.nonce,
                claims_options={
                    "iss": {"essential": True, "value": self.settings.issuer},
                    "aud": {"essential": True, "value": self.settings.client_id},
                },
                leeway=_LEEWAY_SECONDS,
            )
            if claims is not None:
                claims = self._completed(claims, client, token)
        except OAuthError as error:
            raise SignOnError(f"{name} did not log you in ({_told(str(error.error))}).") from error
        except requests.RequestException as error:
            raise self._lost() from error
        except (JoseError, ValueError, TypeError) as error:
            raise SignOnError(f"The ID token of {name} is not good ({type(error).__name__}).") from error
        if claims is None:
            raise SignOnError(f"{name} sent no ID token.")
        return self._person(claims)

    def _completed(self, claims: dict[str, Any], client: Any, token: Mapping[str, Any]) -> dict[str, Any]:
        """The claims of an ID token; what it lacks of the settings' comes from UserInfo (OpenID Connect Core 5.3)."""
        settings, address = self.settings, client.server_metadata.get("userinfo_endpoint")
        lacking = [
            name for name in (settings.user_claim, settings.roles_claim) if _claim(claims, name) is None
        ]
        if not lacking or not self._leads_there(address):
            return claims
        told: dict[str, Any] = client.userinfo(token=token)
        if told.get("sub") != claims["sub"]:
            raise SignOnError(f"{settings.name} told of another person than the one who logged in.")
        return {**claims, **{name: _claim(told, name) for name in lacking}}

    def end_address(self) -> str:
        """Where the provider's own session is ended; empty if it has not said.

        Raises:
            SignOnError: the provider cannot be reached, or is another one.
        """
        end = str(self._connect().server_metadata.get("end_session_endpoint"))
        return end if self._leads_there(end) else ""

    @property
    def _callback(self) -> str:
        return self.settings.public_address.rstrip("/") + CALLBACK

    def _connect(self) -> Any:
        """A client that knows what the provider says of itself (OpenID Connect Discovery 4)."""
        settings = self.settings
        client = _Client(
            None,
            client_id=settings.client_id,
            client_secret=self._secret,
            server_metadata_url=settings.issuer.rstrip("/") + "/.well-known/openid-configuration",
            client_kwargs={
                "scope": " ".join(settings.scopes),
                "code_challenge_method": "S256",
                "default_timeout": _WAIT_SECONDS,
                "trust_env": False,
                "verify": str(settings.tls_ca) if settings.tls_ca else True,
            },
        )
        try:
            told: dict[str, Any] = client.load_server_metadata()
        except (OSError, ValueError, TypeError) as error:
            raise self._lost() from error
        signed_by = told.get("id_token_signing_alg_values_supported")
        usable = [each for each in _ALGORITHMS if isinstance(signed_by, list) and each in signed_by]
        if (
            told.get("issuer") != settings.issuer
            or not all(self._leads_there(told.get(each)) for each in _ENDPOINTS)
            or not usable
        ):
            raise SignOnError(f"{settings.name} is set up in another way than focalis.toml says.", 502)
        told["id_token_signing_alg_values_supported"] = usable
        return client

    def _leads_there(self, address: object) -> bool:
        """Whether it is a web address, encrypted if that of the settings is."""
        scheme = self.settings.issuer.partition(":")[0]
        return str(address).startswith(("https://", f"{scheme}://"))

    def _lost(self) -> SignOnError:
        name = self.settings.name
        return SignOnError(f"{name} cannot be reached. Users of this device log in below all the same.", 503)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        settings = self.settings
        given, subject = claims.get(settings.user_claim), claims["sub"]
        if not isinstance(given, str) or not isinstance(subject, str) or not _NAME.fullmatch(given):
            text = f"{settings.name} names you in no usable way; its claim {settings.user_claim} is to hold a name."
            raise SignOnError(text, 403)
        who = f"{given} ({settings.name})"
        values = set(_values_at(claims, settings.roles_claim))
        role = next((each for each in reversed(ROLES) if values & set(settings.roles.get(each, ()))), None)
        if role is None:
            text = f"{settings.name} knows you as {given}, but you have no role on this device; ask its administrator."
            raise SignOnError(text, 403, who)
        return Person(who, f"{settings.issuer} {subject}", role)


def _secret_of(settings: OidcSettings) -> str:
    path = settings.client_secret_file
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError.at(path, "cannot be read", "put the client secret of [oidc] there") from error
    if not secret:
        raise UsageError.at(path, "is empty", "put the client secret of [oidc] there")
    return secret


def _values_at(claims: Mapping[str, Any], name: str) -> list[str]:
    """The texts of a claim, one or several."""
    found = _claim(claims, name)
    found = [found] if isinstance(found, str) else found
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim, None without it; its name may have dots, or lead with dots into other claims."""
    found: Any = claims
    for part in [name] if name in claims else name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _lives(attempt: _Attempt, now: float) -> bool:
    return now - attempt.began < ATTEMPTS_SECONDS


def _told(code: str) -> str:
    """An error code of the provider's, if it is one; whatever else stands there is repeated nowhere."""
    return code if _CODE.fullmatch(code) else "without a reason"
