"""Model folders: validated reading and atomic writing."""

from __future__ import annotations

from sparsebert.checkpoint.architecture import PARTS, LinearLayer
from sparsebert.checkpoint.auxiliary_files import copy_auxiliary_files, write_auxiliary_files
from sparsebert.checkpoint.card import write_card
from sparsebert.checkpoint.config import EncoderConfig, Head, write_config
from sparsebert.checkpoint.folder import Checkpoint, open_checkpoint
from sparsebert.checkpoint.hub import resolve_model, source_name
from sparsebert.checkpoint.masks import MASKS_NAME, read_masks, write_masks
from sparsebert.checkpoint.model_settings import Prompts, read_prompts
from sparsebert.checkpoint.modules import transformer_folder
from sparsebert.checkpoint.pooling import Pooling, read_pooling
from sparsebert.checkpoint.score_function import ScoreFunction, read_score_function
from sparsebert.checkpoint.sparsity import with_step
from sparsebert.checkpoint.staging import staged_folder
from sparsebert.checkpoint.tensors import WEIGHTS_NAME, TensorFiles, TensorSpec
from sparsebert.checkpoint.writing import write_tensors

__all__ = [
    "MASKS_NAME",
    "PARTS",
    "WEIGHTS_NAME",
    "Checkpoint",
    "EncoderConfig",
    "Head",
    "LinearLayer",
    "Pooling",
    "Prompts",
    "ScoreFunction",
    "TensorFiles",
    "TensorSpec",
    "copy_auxiliary_files",
    "open_checkpoint",
    "read_masks",
    "read_pooling",
    "read_prompts",
    "read_score_function",
    "resolve_model",
    "source_name",
    "staged_folder",
    "transformer_folder",
    "with_step",
    "write_auxiliary_files",
    "write_card",
    "write_config",
    "write_masks",
    "write_tensors",
]
