"""What the payloads with a schema of our own share: strict models, finite arrays of a given shape."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from binworks.corrections.sets import CorrectionSet, payload_error
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64

ETA_EDGES_48 = np.round(np.linspace(-2.4, 2.4, 49), 10)
ETA_EDGES_24 = np.round(np.linspace(-2.4, 2.4, 25), 10)


class Document(BaseModel):
    """A payload: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


D = TypeVar("D", bound=Document)


def read_document(model: type[D], corrections: CorrectionSet, name: str, kind: str) -> D:
    """Read and validate a payload.

    Raises
    ------
    PayloadError
        Naming the field that is wrong.
    """
    try:
        return model.model_validate(corrections.payload(name, kind))
    except ValidationError as error:
        raise payload_error(error, f"{corrections.name}/{name}") from None


def finite_array(values: Any, shape: tuple[int, ...], where: str) -> Float64:
    """Return the values as an array of that shape.

    Raises
    ------
    PayloadError
        If the shape differs or a value is not finite.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise PayloadError(f"Expected numbers of shape {shape}.", code="wrong-axes", where=where) from None
    if array.shape != shape:
        raise PayloadError(f"Expected shape {shape}, got {array.shape}.", code="wrong-axes", where=where)
    if not np.isfinite(array).all():
        raise PayloadError("Every value must be finite.", code="not-finite", where=where)
    return array


def check_edges(values: Any, expected: Float64, where: str) -> None:
    """Refuse edges that are not the ones the kernels bin in.

    Raises
    ------
    PayloadError
        Naming the first edge that differs.
    """
    edges = finite_array(values, expected.shape, where)
    wrong = np.flatnonzero(np.abs(edges - expected) > 1e-9)
    if len(wrong):
        i = int(wrong[0])
        raise PayloadError(f"Edge {i} is {edges[i]}, expected {expected[i]}.", code="wrong-axes", where=where)


def check_covariance(matrix: Float64, where: str) -> None:
    """Refuse matrices (the last two axes) that are not symmetric and positive semi-definite.

    Raises
    ------
    PayloadError
        If one is not.
    """
    scale = np.abs(matrix).max(initial=0.0)
    if np.abs(matrix - np.swapaxes(matrix, -1, -2)).max(initial=0.0) > 1e-9 * scale:
        raise PayloadError("The covariance is not symmetric.", code="bad-covariance", where=where)
    if np.linalg.eigvalsh(matrix).min(initial=0.0) < -1e-9 * scale:
        raise PayloadError("The covariance has a negative eigenvalue.", code="bad-covariance", where=where)
