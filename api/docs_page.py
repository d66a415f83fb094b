"""The page on which the REST interface can be read and tried: Swagger UI, from our own files."""

from __future__ import annotations

from fastapi import APIRouter, Response

from binworks.api import page_templates

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def docs() -> Response:
    """Show the schema of the interface."""
    return page_templates.page("docs.html")
