"""What mkdocs calls while it builds the site: the page of all config fields is made from the dataclasses."""

import importlib.util
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated page."""
    spec = importlib.util.spec_from_file_location("reference", Path(__file__).with_name("reference.py"))
    if spec is None or spec.loader is None:
        raise FileNotFoundError("reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    files.append(File.generated(config, "config.md", content=reference.page()))
    return files
