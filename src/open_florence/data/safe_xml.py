"""XML of unknown origin, read without its dangers: no entities of the file's own, nothing fetched from elsewhere."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from xml.parsers import expat


def xml_root(file: Path) -> ET.Element:
    """The root element of an XML file; one with a DTD is refused, for entities can make a small file fill the memory.

    Raises ValueError for a DTD, expat.ExpatError for what is no XML, LookupError for an unknown encoding, and OSError
    for a file that cannot be opened.
    """

    def refuse(*_: object) -> None:
        raise ValueError("it holds a DTD, which is not read for safety")

    builder = ET.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(file.read_bytes(), True)
    return builder.close()
