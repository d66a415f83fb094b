"""Zip archives whose bytes depend on their contents alone: members carry no time."""

from __future__ import annotations

import zipfile
from typing import IO, Any

_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows


class TimelessZip(zipfile.ZipFile):
    """A `zipfile.ZipFile` in which members written by name get no time stamp."""

    def open(self, name: str | zipfile.ZipInfo, mode: Any = "r", *args: Any, **options: Any) -> IO[bytes]:
        """Open a member, as `zipfile.ZipFile.open`."""
        if mode == "w" and isinstance(name, str):
            name = self._member(name)
        return super().open(name, mode, *args, **options)

    def writestr(self, zinfo_or_arcname: str | zipfile.ZipInfo, *args: Any, **options: Any) -> None:
        """Write a member, as `zipfile.ZipFile.writestr`."""
        if isinstance(zinfo_or_arcname, str):
            zinfo_or_arcname = self._member(zinfo_or_arcname)
        super().writestr(zinfo_or_arcname, *args, **options)

    def _member(self, name: str) -> zipfile.ZipInfo:
        member = zipfile.ZipInfo(name, _NO_TIME)
        member.compress_type = self.compression
        return member
