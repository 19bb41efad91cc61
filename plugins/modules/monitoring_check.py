#!/usr/bin/python
"""Module `jhok.lab.monitoring_check`: has promtool and amtool judge what Prometheus and Alertmanager would get."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitoring_check
short_description: Has promtool and amtool judge a configuration
version_added: 0.1.0
author: The jhok.lab authors (@jhok)
description:
  - Runs both in one container of the image that is shipped, without a network, on this machine; without that image,
    those on the path. Without either it fails where O(own) names something, else, and in check mode, it
    warns and judges nothing.
  - Fails with their words, and with the name of what they refuse. Changes nothing, in check mode or not.
options:
  image:
    description: Reference of the image on this machine.
    type: str
    required: true
  prometheus:
    description: Text of C(prometheus.yml).
    type: str
    required: true
  rules:
    description: Texts of rules files, by the name under which what is wrong with them is told.
    type: dict
    required: true
  alertmanager:
    description: Text of C(alertmanager.yml), which holds secrets. What a failure says of it has no address in it.
    type: str
    required: true
  own:
    description: Variables with which the site gives rules, panels or receivers of its own.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: Have Prometheus' own tools judge what they will get
  jhok.lab.monitoring_check:
    image: localhost/jhok/prometheus:latest
    prometheus: "{{ files.prometheus }}"
    rules: "{{ files.rules }}"
    alertmanager: "{{ files.alertmanager }}"
    own: [monitoring_rules]
  become: true
"""

RETURN = r"""
tools:
  description: What judged, V(image) or V(path); empty when nothing did.
  type: str
  returned: always
"""

import re
import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils import images

UNJUDGED = (
    "{own}: cannot be judged: {what}. With one error in them Prometheus or Alertmanager would not start. No machine "
    "has been changed. To do: make the image with `ansible-playbook site.yml --tags bundle`, or install promtool and "
    "amtool (Debian: apt-get install prometheus prometheus-alertmanager), or leave them out until then."
)
PROMETHEUS = "prometheus.yml"
ALERTMANAGER = "alertmanager.yml"
# One shell for all of them: a container's start takes longer than their work.
_SCRIPT = """\
judge() { file=$1; shift; words=$("$@" "$file" 2>&1) || printf '%s\\n%s\\n\\0' "$file" "$words"; }
judge prometheus.yml promtool check config --syntax-only
for file in rules-*.yml; do judge "$file" promtool check rules --lint=none; done
judge alertmanager.yml amtool check-config
"""
_PLACE = re.compile(r"^\S+\.yml: (?:\d+:\d+: )?|\bline \d+: ", re.MULTILINE)  # in a file that nobody has
_CHATTER = re.compile(r"(?:Checking .*?)?\s*FAILED:\s*|^Checking .*$|^amtool: .*$", re.MULTILINE)
_QUERY = re.compile(r'^group "([^"]*)", rule 1, "query": ', re.MULTILINE)
_QUOTED = re.compile(r'"[^"]*"|\S+://\S+')


def faults(output: str, names: dict[str, str]) -> list[str]:
    """Return what was refused, with the tools' words.

    output: what the script wrote: for each file that was refused its name, a line break, the words and a NUL.
    names: what each file is of.
    """
    found = []
    for part in output.split("\0")[:-1]:
        file, words = part.split("\n", 1)
        text = _PLACE.sub("", _CHATTER.sub("", words)).strip()
        if file == ALERTMANAGER:
            text = _QUOTED.sub("(hidden)", text)
        lines = [line.strip() for line in _QUERY.sub(r"\1: ", text).splitlines() if line.strip()]
        prefix = "" if names[file] == "queries" else f"{names[file]}: "
        found += [f"{prefix}{line}" for line in lines]
    return found


def command(module: AnsibleModule, directory: str) -> tuple[str, list[str]]:
    """Return what judges (`image`, `path` or nothing) and how the script is run."""
    image = module.params["image"]
    cgroup2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    podman = images.podman_command(cgroup2, shutil.which("runc") is not None)
    shell = ["sh", "-c", _SCRIPT]
    if shutil.which("podman") and module.run_command(["podman", "image", "exists", image])[0] == 0:
        # The files belong to root and are nobody else's to read.
        options = ["--rm", "--pull=never", "--network=none", "--user=0:0", "--cap-drop=all", "--read-only"]
        limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096", "--pids-limit=0", "--log-driver=none"]
        place = [f"--volume={directory}:/judge:ro", "--workdir=/judge", "--entrypoint="]
        return "image", [*podman, "run", *options, *limits, *place, image, *shell]
    if shutil.which("promtool") and shutil.which("amtool"):
        return "path", shell
    return "", []


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "image": text,
            "prometheus": text,
            "rules": {"type": "dict", "required": True},
            "alertmanager": {**text, "no_log": True},
            "own": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    with tempfile.TemporaryDirectory(prefix="jhok-") as directory:
        names = {PROMETHEUS: PROMETHEUS, ALERTMANAGER: "monitoring_receivers"}
        (Path(directory) / PROMETHEUS).write_text(given["prometheus"])
        (Path(directory) / ALERTMANAGER).write_text(given["alertmanager"])
        for number, (name, content) in enumerate(given["rules"].items()):
            names[f"rules-{number}.yml"] = name
            (Path(directory) / f"rules-{number}.yml").write_text(content)
        tools, run = command(module, directory)
        if not tools:
            what = f"neither {given['image']} nor promtool and amtool are on this machine"
            if given["own"] and not module.check_mode:  # a real run makes the image first
                module.fail_json(msg=UNJUDGED.format(own=", ".join(given["own"]), what=what), tools="")
            module.warn(f"Rules, queries and receivers have not been judged by Prometheus' own tools: {what}.")
            module.exit_json(changed=False, tools="")
        status, output, errors = module.run_command(run, cwd=directory)
    refused = faults(output, names)
    if refused:
        listed = "\n".join(f"{number}. {line}" for number, line in enumerate(refused, 1))
        module.fail_json(
            msg=f"Prometheus' own tools refuse this. No machine has been changed.\n\n{listed}", tools=tools
        )
    if status:
        module.fail_json(msg=f"Prometheus' own tools could not be run: {errors.strip()}", tools=tools)
    module.exit_json(changed=False, tools=tools)


if __name__ == "__main__":
    main()
