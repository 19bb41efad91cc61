"""What serves the page of the dashboards: configuration of nginx, of the app and of the sign-in. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import GRAFANA, PROMETHEUS, SIGN_IN, WEB

# All that may be asked of Prometheus. Nothing else of the request's path is handed on.
QUERIES = (
    "query",
    "query_range",
    "series",
    "labels",
    "label/[a-zA-Z_][a-zA-Z0-9_]*/values",
    "metadata",
    "rules",
    "alerts",
    "targets",
    "format_query",
    "status/buildinfo",
)

# Style elements are how the app's libraries set styles; data: is for pictures that they carry in their code.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = f"""\
add_header Content-Security-Policy "{_POLICY}" always;
add_header X-Content-Type-Options nosniff always;
add_header X-Frame-Options DENY always;
add_header Referrer-Policy same-origin always;
add_header Cache-Control $cache;
"""

_MAIN = """\
worker_processes 1;
daemon off;
pid /tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    sendfile on;
    server_tokens off;
    absolute_redirect off;
    client_body_buffer_size 16k;
    proxy_buffers 8 16k;
    proxy_max_temp_file_size 0;
    gzip on;
    gzip_proxied any;
    gzip_min_length 1000;
    gzip_types text/css text/plain application/javascript application/json image/svg+xml;
    # A line for what failed only, and none with the query string: a sign-in's holds its code.
    map $status $failed { ~^[23] 0; 401 0; default 1; }
    log_format failure '$remote_addr "$request_method $uri" $status $request_time s';
    access_log /dev/stderr failure if=$failed;
    map $uri $cache { ~^/assets/ "private, max-age=31536000, immutable"; ~^/site/ no-cache; default no-store; }
    map $http_upgrade $connection_header { default upgrade; '' ''; }
    proxy_http_version 1.1;
"""

_HEALTHZ = """\
location = /healthz {
    default_type text/plain;
    return 200 "ok\\n";
}
"""

_SIGN_IN = f"""\
auth_request /internal/auth;
location = /internal/auth {{
    internal;
    proxy_pass http://127.0.0.1:{SIGN_IN}/auth;
    proxy_pass_request_body off;
    proxy_set_header Content-Length "";
    proxy_set_header X-Real-IP $remote_addr;
}}
location /sign-in/ {{
    auth_request off;
    error_log stderr crit;
    error_page 502 504 = @no_sign_in;
    client_max_body_size 16k;
    proxy_pass http://127.0.0.1:{SIGN_IN};
    proxy_set_header Host $http_host;
    proxy_set_header X-Real-IP $remote_addr;
}}
location @sign_in {{
    return 302 /sign-in/?next=$request_uri;
}}
location @signed_out {{
    types {{ }}
    default_type application/json;
    return 401 '{{"status": "error", "error": "You are signed out: load the page again."}}';
}}
location @no_sign_in {{
    types {{ }}
    default_type text/plain;
    return 503 "The sign-in does not answer. Try again in a minute.\\n";
}}
"""

_OPEN = """\
location /sign-in/ {
    return 302 /;
}
"""


def web_files(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts `nginx.conf`, and `settings.json` of the app.

    Args:
        settings: `ui` (perses or grafana), `access` (hub, password or open; Grafana has a sign-in of its own),
            `site_name`, `url`, `hub_url` and `scrape_interval` in seconds, below which no chart asks for points.

    """
    app = {key: settings[key] for key in ("site_name", "url", "hub_url", "access", "scrape_interval")}
    server = _grafana() if settings["ui"] == "grafana" else _perses(settings["access"] == "open")
    blocks = f"listen {WEB};\n{_HEALTHZ}{server}"
    text = f"{_MAIN}    server {{\n{_indented(blocks, 8)}    }}\n}}\n"
    return {"nginx.conf": text, "settings.json": json.dumps(app, indent=2, ensure_ascii=False) + "\n"}


def sign_in_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings.json of the sign-in service.

    Args:
        settings: `access`, `site_name`, `url`, `hub_url` and `hub_namespace`.

    """
    api = f"http://hub.{settings['hub_namespace']}.svc:8081/hub/api"
    return {
        "port": SIGN_IN,
        **{key: settings[key] for key in ("url", "hub_url", "access", "site_name")},
        "hub_api_url": api,
    }


def _perses(is_open: bool) -> str:
    """Return the server's blocks for the app."""
    to_sign_in = "" if is_open else "error_page 401 = @sign_in;\nerror_page 500 = @no_sign_in;\n"
    signed_out = to_sign_in.replace("@sign_in", "@signed_out")
    return (
        _HEADERS
        + "root /srv/app;\n"
        + (_OPEN if is_open else _SIGN_IN)
        + _location("/", f"{to_sign_in}try_files $uri /index.html;\n")
        + _location("= /logo.svg", "" if is_open else "auth_request off;\n")
        + _location("/assets/", f"{signed_out}gzip_static on;\n")
        + _location("= /api/v1/view", "return 204;\n")
        + _location("/site/", f"root /srv;\n{signed_out}")
        + _location("= /site/runbooks.html", f"root /srv;\n{to_sign_in}")
        + _location("/prometheus/", "return 403;\n")
        + _location(
            f'~ "^/prometheus/api/v1/({"|".join(QUERIES)})$"',
            "limit_except GET POST { deny all; }\n"
            "client_max_body_size 256k;\n"
            f"{signed_out}"
            "error_page 502 504 = @no_prometheus;\n"
            f"proxy_pass http://127.0.0.1:{PROMETHEUS}/api/v1/$1$is_args$args;\n"
            'proxy_set_header Cookie "";\n'
            'proxy_set_header Authorization "";\n'
            'proxy_set_header Origin "";\n',
        )
        + _location(
            "@no_prometheus",
            "default_type application/json;\n"
            """return 502 '{"status": "error", "error": "Prometheus does not answer."}';\n""",
        )
    )


def _grafana() -> str:
    """Return the server's blocks for Grafana, which has a sign-in and asks Prometheus itself."""
    return _location("= /site/runbooks.html", f"root /srv;\n{_HEADERS}") + _location(
        "/",
        f"proxy_pass http://127.0.0.1:{GRAFANA};\n"
        "proxy_set_header Host $http_host;\n"
        "proxy_set_header X-Real-IP $remote_addr;\n"
        "proxy_set_header X-Forwarded-For $remote_addr;\n"
        "proxy_set_header Upgrade $http_upgrade;\n"
        "proxy_set_header Connection $connection_header;\n"
        "client_max_body_size 10m;\n",
    )


def _location(match: str, lines: str) -> str:
    return f"location {match} {{\n{_indented(lines, 4)}}}\n"


def _indented(text: str, spaces: int) -> str:
    return "".join(" " * spaces + line + "\n" for line in text.splitlines())
