"""An OpenID Connect provider on this machine, with people that the tests know; it can be made to lie."""

import base64
import json
import threading
import warnings
from urllib.parse import parse_qs, urlsplit

import authlib.deprecate  # noqa: F401  (first, because it turns its warnings on)
import requests
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from werkzeug.serving import make_server

with warnings.catch_warnings():  # it uses a part of Authlib that goes
    warnings.simplefilter("ignore")
    from oidc_provider_mock import User, app

PEOPLE = {
    "s-anna": {"preferred_username": "anna", "groups": ["staff", "radiology"]},
    "s-admin": {"preferred_username": "admin", "groups": ["it", "radiology"]},
    "s-guest": {"preferred_username": "guest", "groups": ["visitors"]},
}
SECRET = "the client's secret"
OWN, STRANGE = RSAKey.generate_key(), RSAKey.generate_key()


class OpenIdProvider:
    """The provider, and what it was asked.

    Attributes:
        people: subject to claims; may be changed.
        lies: claims that its ID tokens state instead; None leaves one out.
        forged: "none", "shared" or "stranger": how its ID tokens are signed instead.
        discovery: what it says of itself instead.
        told: what its UserInfo tells instead.
        asked: the path and the fields of each request.
    """

    def __init__(self, host="127.0.0.1"):
        self.lies, self.forged, self.discovery, self.told, self.asked = {}, "", {}, {}, []
        made = app(user_claims=[User(sub=sub, claims=claims) for sub, claims in PEOPLE.items()])
        made.before_request(self._note)
        made.after_request(self._changed)
        self._server = make_server(host, 0, made, threaded=True)
        self.issuer = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self):
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def tell_the_truth(self):
        self.lies, self.forged, self.discovery, self.told, self.asked = {}, "", {}, {}, []
        for subject, claims in PEOPLE.items():
            self.know(subject, **claims)

    def know(self, subject, **claims):
        requests.put(f"{self.issuer}/users/{subject}", json=claims, timeout=10).raise_for_status()

    def consent(self, target, subject):
        """What a person does there; the query with which the browser is sent back."""
        answer = requests.post(target, data={"sub": subject}, allow_redirects=False, timeout=10)
        return {
            name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()
        }

    def _note(self):
        from flask import request

        self.asked.append((request.path, dict(request.values), dict(request.headers)))

    def _changed(self, response):
        from flask import request

        if request.path == "/.well-known/openid-configuration" and self.discovery:
            response.set_data(json.dumps({**response.get_json(), **self.discovery}))
        if request.path == "/userinfo" and self.told:
            told = {**response.get_json(), **self.told} if isinstance(self.told, dict) else self.told
            response.set_data(json.dumps(told))
        if request.path == "/jwks" and (self.lies or self.forged):
            keys = response.get_json()["keys"] + [{**OWN.as_dict(private=False), "kid": "own"}]
            response.set_data(json.dumps({"keys": keys}))
        if (
            request.path == "/oauth2/token"
            and (self.lies or self.forged)
            and "id_token" in response.get_json()
        ):
            told = response.get_json()
            part = told["id_token"].split(".")[1]
            claims = {**json.loads(base64.urlsafe_b64decode(part + "==")), **self.lies}
            claims = {name: value for name, value in claims.items() if value is not None}
            response.set_data(json.dumps({**told, "id_token": self._signed(claims)}))
        return response

    def _signed(self, claims):
        if self.forged == "none":
            parts = [json.dumps(each).encode() for each in ({"alg": "none"}, claims)]
            return ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts) + "."
        if self.forged == "shared":
            return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))
        key = STRANGE if self.forged == "stranger" else OWN
        return jwt.encode({"alg": "RS256", "kid": "own"}, claims, key)
