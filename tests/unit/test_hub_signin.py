"""Sign-in as far as it can be judged without a hub; tests/integration/test_sign_in.py has one."""

from __future__ import annotations

import pytest
from hub_native import password_fault, password_hash
from hub_signin import GitHubAuthenticator, PasswordAuthenticator, configure, is_outage
from hub_spawner import VERIFY_USER
from jupyterhub.auth import Authenticator
from oauthenticator.github import GitHubOAuthenticator
from traitlets.config import Config

GITHUB = {
    "url": "https://github.example.org/",
    "client_id": "Iv1.0",
    "callback_url": "http://172.16.0.100:30080/hub/oauth_callback",
    "ca": "",
    "organizations": [],
    "teams": [],
}


CLASSES = (Authenticator, GitHubOAuthenticator, GitHubAuthenticator)


def github(proxy: str = "", **settings: object) -> Config:
    config = Config()
    secrets = {"github-client-secret": "s3cret\n", "github-proxy": proxy}
    configure(config, {"auth": "github", "users": ["Ann"], "admins": [], "github": {**GITHUB, **settings}}, secrets.get)
    return config


def test_every_setting_for_github_exists() -> None:
    config = github()
    known = {cls.__name__: cls.class_traits(config=True) for cls in CLASSES}
    assert config.JupyterHub == {"authenticator_class": GitHubAuthenticator}
    assert set(config) == {*known, "JupyterHub"}
    assert [f"{s}.{name}" for s in known for name in config[s] if name not in known[s]] == []


def test_github_enterprise_has_its_api_beside_it() -> None:
    made = GitHubAuthenticator(config=github())
    assert made.authorize_url == "https://github.example.org/login/oauth/authorize"
    assert made.userdata_url == "https://github.example.org/api/v3/user"
    assert made.client_secret == "s3cret"
    assert made.site_url == "http://172.16.0.100:30080"
    assert GitHubAuthenticator(config=github(url="https://github.com")).userdata_url == "https://api.github.com/user"


def test_no_more_is_asked_of_people_than_is_needed() -> None:
    assert GitHubAuthenticator(config=github()).scope == []
    made = GitHubAuthenticator(config=github(organizations=["physics"], teams=["chemistry:laser"]))
    assert made.scope == ["read:org"]
    assert made.allowed_organizations == {"physics", "chemistry:laser"}


def test_nobody_waits_long_for_github() -> None:
    made = GitHubAuthenticator(config=github())
    assert sum(made.http_request_kwargs[name] for name in ("connect_timeout", "request_timeout")) <= 8
    assert not made.refresh_pre_spawn
    assert made.auth_refresh_age == 300
    assert made.enable_auth_state
    assert VERIFY_USER not in made.allowed_users


@pytest.mark.parametrize(
    ("code", "headers", "outage"),
    [
        (500, {}, True),
        (503, {}, True),
        (599, {}, True),
        (429, {}, True),
        (403, {"X-RateLimit-Remaining": "0"}, True),
        (403, {"Retry-After": "60"}, True),
        (403, {"X-RateLimit-Remaining": "4999"}, False),
        (403, {}, False),
        (401, {"X-RateLimit-Remaining": "0"}, False),
        (404, {}, False),
        (204, {}, False),
    ],
)
def test_what_is_an_outage(code: int, headers: dict[str, str], outage: bool) -> None:
    assert is_outage(code, headers) is outage


@pytest.mark.parametrize("auth", ["password", "native"])
def test_others_have_the_passwords_of_the_secret(auth: str) -> None:
    config = Config()
    configure(config, {"auth": auth, "users": ["ann"], "admins": ["bob"]}, {"passwords.json": '{"ann": "x"}'}.get)
    made = config.JupyterHub.authenticator_class
    assert issubclass(made, PasswordAuthenticator)
    assert made.__name__.lower().startswith(auth)
    assert config.PasswordAuthenticator.passwords == {"ann": "x"}
    assert config.Authenticator.allowed_users == {"ann", "bob", VERIFY_USER}
    assert config.Authenticator.admin_users == {"bob"}


def test_a_chosen_password_is_kept_as_a_hash() -> None:
    encoded = password_hash("correct horse")
    assert "correct" not in encoded
    assert password_hash("correct horse") != encoded
    assert PasswordAuthenticator.matches("correct horse", encoded)
    assert not PasswordAuthenticator.matches("correct horse ", encoded)


@pytest.mark.parametrize(
    ("password", "again", "what"),
    [
        ("correct horse", "correct horse", ""),
        ("ééééé-ßßßß", "ééééé-ßßßß", "too easy"),
        ("Correct horse", "correct horse", "differ"),
        ("nine char", "nine char", "at least 10"),
        ("x" * 1025, "x" * 1025, "at most 1024"),
        ("Grete-Hermann", "Grete-Hermann", "too easy"),
    ],
)
def test_passwords_that_people_choose(password: str, again: str, what: str) -> None:
    fault = password_fault("grete", password, again)
    assert what in fault
    assert bool(fault) == bool(what)
