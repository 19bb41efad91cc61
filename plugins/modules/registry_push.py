#!/usr/bin/python
"""Push the images of an OCI layout that a registry lacks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_push
short_description: Push the images of an OCI layout that a registry lacks
description:
  - Asks the registry for each image by name and tag, and copies those from the layout whose digest it does not answer.
    What was pushed is asked for again, so that its digest is known to be the layout's.
  - Runs on a machine that reaches the registry. Needs C(skopeo) there, unless there is nothing to push.
options:
  url:
    description: Registry to push to.
    type: str
    default: http://127.0.0.1:5001
  layout:
    description: Directory of the OCI layout, on the machine where the module runs.
    type: path
    required: true
  images:
    description: Images as in C(manifest.json) of the bundle.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name in the registry, without host.
        type: str
        required: true
      tag:
        description: Tag in the registry.
        type: str
        required: true
      digest:
        description: Digest of the image's manifest.
        type: str
        required: true
      layout_ref:
        description: Name of the image in the layout.
        type: str
        required: true
      size:
        description: As in the manifest; not used.
        type: int
      origin:
        description: As in the manifest; not used.
        type: str
      section:
        description: As in the manifest; not used.
        type: str
  timeout:
    description: Seconds to wait for an answer of the registry, and for it to come up.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Only asks. A registry that does not answer is one that has no image yet.
  diff_mode:
    support: none
author: jhok.lab
"""

EXAMPLES = r"""
- name: Push what the registry lacks
  jhok.lab.registry_push:
    layout: /var/lib/jhok/bundle/images
    images: "{{ manifest.images }}"
"""

RETURN = r"""
pushed:
  description: Images that were pushed, or would be in check mode, as name and tag.
  returned: always
  type: list
  elements: str
  sample: ["kubernetes/pause:3.2"]
"""

import http.client
import time
import urllib.error
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

MEDIA_TYPES = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)


class RegistryError(Exception):
    """What the registry did not do."""


def answered_digest(url: str, name: str, tag: str, timeout: int) -> str | None:
    """Return the digest that the registry at ``url`` has for an image, None when it has none.

    ``timeout`` is in seconds. Raises OSError or HTTPException when it does not answer, RegistryError when it answers
    with an error.
    """
    asked = f"{url}/v2/{name}/manifests/{tag}"
    try:
        # The registry is on this machine: a proxy that the machine uses for the internet has no part in it.
        with open_url(
            asked, method="HEAD", headers={"Accept": MEDIA_TYPES}, timeout=timeout, use_proxy=False
        ) as answer:
            return str(answer.headers["Docker-Content-Digest"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise RegistryError(
            f"HEAD {asked} answered {error.code} {error.reason}. See the log of the registry."
        ) from error


def missing_images(module: AnsibleModule) -> list[dict[str, Any]]:
    """Return the wanted images that the registry does not have with their digest."""
    url, timeout = module.params["url"].rstrip("/"), module.params["timeout"]
    deadline = time.monotonic() + timeout
    while True:
        try:
            return [
                image
                for image in module.params["images"]
                if answered_digest(url, image["name"], image["tag"], timeout) != image["digest"]
            ]
        except (OSError, http.client.HTTPException) as error:
            if module.check_mode:
                return list(module.params["images"])
            if time.monotonic() > deadline:
                raise RegistryError(f"No answer from registry {url} in {timeout} seconds: {error}.") from error
            time.sleep(0.2)


def push(module: AnsibleModule, image: dict[str, Any]) -> None:
    """Copy one image into the registry; raise RegistryError when it is not there with its digest afterwards."""
    url, name = module.params["url"].rstrip("/"), f"{image['name']}:{image['tag']}"
    target = urlsplit(url)
    tls = str(target.scheme == "https").lower()
    # --insecure-policy: the digest below is the check; a machine may lack policy.json.
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", f"--dest-tls-verify={tls}"]
    command += [f"oci:.:{image['layout_ref']}", f"docker://{target.netloc}/{name}"]
    code, out, err = module.run_command(command, cwd=module.params["layout"])
    if code != 0:
        raise RegistryError(f"Push of {name} to {url} failed: {(err or out).strip()[-2000:]}")
    digest = answered_digest(url, image["name"], image["tag"], module.params["timeout"])
    if digest != image["digest"]:
        raise RegistryError(
            f"{name} has digest {digest} in {url}, and {image['digest']} in the bundle: "
            f"layout {module.params['layout']} is not the bundle's. Run the play again."
        )


def main() -> None:
    """Run the module."""
    needed: dict[str, Any] = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:5001"},
            "layout": {"type": "path", "required": True},
            "images": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    **dict.fromkeys(("name", "tag", "digest", "layout_ref"), needed),
                    "size": {"type": "int"},
                    "origin": {"type": "str"},
                    "section": {"type": "str"},
                },
            },
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        missing = missing_images(module)
        if not module.check_mode:
            for image in missing:
                push(module, image)
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(missing), pushed=[f"{image['name']}:{image['tag']}" for image in missing])


if __name__ == "__main__":
    main()
