#!/usr/bin/python
"""Ansible module jhok.lab.image_info: say which images of this collection are built and which are not."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_info
short_description: Say which images of this collection are built
version_added: 0.1.0
author: The jhok.lab authors (@jhok)
description:
  - Returns the key of each image, as M(jhok.lab.image_build) would build it, and whether podman has it. One call for a
    whole catalogue, so that a run that builds nothing takes no time.
  - Needs neither podman nor root; without them no image is there.
options:
  images:
    description: The images.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the image below C(localhost/jhok/).
        type: str
        required: true
      folder:
        description: The folder that the image is built from.
        type: path
        required: true
      target:
        description: Stage of the Containerfile; the last one when not given.
        type: str
        default: ""
      build_args:
        description: Values for the Containerfile's C(ARG) lines, as M(jhok.lab.image_build) gets them.
        type: dict
        default: {}
      inputs:
        description: Files of this machine that the build gets, by name.
        type: dict
        default: {}
      setting:
        description: Variable that O(images[].inputs) comes from, named when a file is missing.
        type: str
        default: ""
  base_dir:
    description: Directory of the images that others are built from and that are not beside their folders.
    type: path
  epoch:
    description: Free text, part of every key.
    type: str
    default: ""
attributes:
  check_mode:
    description: Changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: See which images are there
  jhok.lab.image_info:
    images:
      - {name: hub, folder: images/hub}
      - name: kubernetes-1.37/kube-apiserver
        folder: images/kubernetes
        target: kube-apiserver
        build_args: {minor: "1.37"}
  become: true
  register: known
"""

RETURN = r"""
images:
  description: One entry per image, in the order asked.
  returned: always
  type: list
  elements: dict
  sample:
    - {name: hub, image: "localhost/jhok/hub:0f3b5c8d9e21a764", key: 0f3b5c8d9e21a764, present: true}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils import image_folders, images


def describe(
    wanted: dict[str, Any], epoch: str, base: Path | None, stored: dict[str, tuple[str, list[str]]]
) -> dict[str, Any]:
    """Return name, reference and key of an image, and whether it is there and the latest of its name."""
    name = images.check_name(wanted["name"])
    arguments = {str(key): str(value) for key, value in wanted["build_args"].items()}
    arguments |= image_folders.input_sums(wanted["inputs"], wanted["setting"])
    key = image_folders.content_key(Path(wanted["folder"]).resolve(), epoch, wanted["target"], arguments, base)
    reference = images.reference(name, key)
    _, tags = stored.get(reference, ("", []))
    return {"name": name, "image": reference, "key": key, "present": images.reference(name, "latest") in tags}


def main() -> None:
    """Entry point."""
    image = {
        "name": {"type": "str", "required": True},
        "folder": {"type": "path", "required": True},
        "target": {"type": "str", "default": ""},
        "build_args": {"type": "dict", "default": {}},
        "inputs": {"type": "dict", "default": {}},
        "setting": {"type": "str", "default": ""},
    }
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "list", "elements": "dict", "required": True, "options": image},
            "base_dir": {"type": "path"},
            "epoch": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    stored = image_folders.present()
    base = Path(module.params["base_dir"]).resolve() if module.params["base_dir"] else None
    try:
        found = [describe(wanted, module.params["epoch"], base, stored) for wanted in module.params["images"]]
    except images.ImageError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, images=found)


if __name__ == "__main__":
    main()
