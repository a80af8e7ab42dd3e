"""transformers without the parts that nobody here uses, which would cost each process seconds of CPU at its start."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from types import ModuleType
from typing import Any


def import_transformers() -> ModuleType:
    """transformers; whatever is imported from it after this call comes without scikit-learn, scipy and generated docstrings.

    `from transformers import AutoTokenizer` alone imports text generation, which imports scikit-learn for one kind of speculative
    decoding. Each model imports all losses, and scipy for the losses of object detection.
    """
    distributions = importlib.metadata.packages_distributions
    # transformers reads every installed distribution's list of files, to map packages to distributions; without, it goes by names
    importlib.metadata.packages_distributions = dict
    try:
        import transformers
    finally:
        importlib.metadata.packages_distributions = distributions
    utils = transformers.utils
    if utils.auto_docstring is not _keep_docstring:
        utils.auto_docstring = _keep_docstring
        utils.is_sklearn_available = utils.is_scipy_available = lambda: False
        # `import transformers` has scanned the folder of all models; `transformers.models` scans it again, by another spelling
        scan = utils.import_utils.create_import_structure_from_path
        utils.import_utils.create_import_structure_from_path = lambda path: scan(
            Path(path).parent if os.path.isfile(path) else Path(path)
        )
    return transformers


def _keep_docstring(decorated: Any = None, **options: Any) -> Any:
    """In place of transformers' decorator, with and without arguments."""
    return (lambda function: function) if decorated is None else decorated
