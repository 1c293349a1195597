"""What is personal never reaches the lake: records are redacted as raw JSON before they are stored anywhere."""

from flux_pipelines.privacy.pseudonyms import Pseudonyms, normalised
from flux_pipelines.privacy.redactor import Record, Redactor

__all__ = ["Pseudonyms", "Record", "Redactor", "normalised"]
