"""An extension for VS Code, as small as can be: a colour theme. Labs have no internet to fetch one from."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

MANIFEST = """<?xml version="1.0" encoding="utf-8"?>
<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011">
  <Metadata>
    <Identity Language="en-US" Id="{name}" Version="1.0.0" Publisher="lab" />
    <DisplayName>{name}</DisplayName>
    <Description>A colour theme</Description>
  </Metadata>
  <Installation><InstallationTarget Id="Microsoft.VisualStudio.Code" /></Installation>
  <Dependencies />
  <Assets>
    <Asset Type="Microsoft.VisualStudio.Code.Manifest" Path="extension/package.json" Addressable="true" />
  </Assets>
</PackageManifest>
"""
CONTENT_TYPES = """<?xml version="1.0" encoding="utf-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
  <Default Extension=".json" ContentType="application/json" />
  <Default Extension=".vsixmanifest" ContentType="text/xml" />
</Types>
"""


def write_extension(directory: Path, name: str) -> Path:
    """Write extension lab.`name` with the light colour theme `name`; returns its file."""
    package = {
        "name": name,
        "publisher": "lab",
        "version": "1.0.0",
        "engines": {"vscode": "*"},
        "categories": ["Themes"],
        "contributes": {"themes": [{"label": name, "uiTheme": "vs", "path": f"./{name}.json"}]},
    }
    theme = {"name": name, "type": "light", "colors": {"editor.background": "#fffbe6"}, "tokenColors": []}
    path = directory / f"{name}.vsix"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", CONTENT_TYPES)
        archive.writestr("extension.vsixmanifest", MANIFEST.format(name=name))
        archive.writestr("extension/package.json", json.dumps(package))
        archive.writestr(f"extension/{name}.json", json.dumps(theme))
    return path
