"""Pascal VOC: one XML file an image, boxes with a class name (Everingham et al., IJCV 2010).

Coordinates are taken as they stand, as pixels from the top-left corner: most tools write 0-based numbers although the
original data set counts from 1. A file with a DTD is refused, for entities can make a small file fill the memory.
"""

from __future__ import annotations

import glob
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from xml.parsers import expat

from PIL import Image

from open_florence.data.jsonl import write_whole
from open_florence.data.records import box_within, find_image, identify
from open_florence.data.safe_xml import xml_root
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample, Size

IMAGE_FOLDERS = (".", "images", "JPEGImages", "../images", "../JPEGImages")
"""Where the image of an XML file is looked for, from the folder of that file."""


def read_voc(path: Path, on_error: Callable[[str], object]) -> Iterator[Sample]:
    """One sample per XML file below `path`, in the order of their names, with one <OD> annotation by "human".

    `Sample.path` is the image's; its id is the hash of the image, or the name of the XML file where the image is
    missing. Boxes are cut at the image's edge. `on_error` is told of files that cannot be read, of images of another
    size than the file says (the frame of the boxes is then unknown), and of boxes without area or numbers.
    """
    for file in sorted(path.glob("**/*.xml")):
        try:
            sample = _read_file(file, on_error)
        except (expat.ExpatError, LookupError, OSError, ValueError) as error:
            on_error(f"{file} is left out: {error}")
            continue
        yield sample


def write_voc(path: Path, samples: Iterable[Sample]) -> None:
    """Writes one XML file per sample into the folder `path`: the boxes of its first <OD> annotation.

    Raises OpenFlorenceError for a sample without one, for regions that are not boxes, and for two images of one name,
    which VOC cannot tell apart.
    """
    written: dict[str, str] = {}
    for sample in samples:
        stem = Path(sample.path).stem
        if stem in written:
            raise OpenFlorenceError(
                f"VOC names its files by image, and {written[stem]} and {sample.path} are both {stem}"
            )
        written[stem] = sample.path
        root = _tree(sample)
        ET.indent(root)
        write_whole(path / f"{stem}.xml", [ET.tostring(root, encoding="utf-8"), b"\n"])


def _read_file(file: Path, on_error: Callable[[str], object]) -> Sample:
    root = xml_root(file)
    if root.tag != "annotation":
        raise ValueError(f"its root is <{root.tag}>, not VOC's <annotation>")
    name = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    image_path = _image_of(file, name)
    identity, size = identify(image_path, stated_size(root), file.stem)
    regions = []
    for number, thing in enumerate(root.iterfind("object"), start=1):
        try:
            regions.append(_box(thing, size))
        except ValueError as error:
            on_error(f"{file}, object {number}, is left out: {error}")
    path = image_path or file.with_name(name or file.stem)
    return Sample(identity, str(path), size, (Annotation("<OD>", regions=tuple(regions), source="human"),))


def _image_of(file: Path, name: str) -> Path | None:
    """The image an XML file is about: of the name it gives, or else of its own name with any image suffix."""
    folders = [file.parent / folder for folder in IMAGE_FOLDERS]
    if (found := find_image(folders, name)) is not None:
        return found
    suffixes = Image.registered_extensions()
    for folder in folders:
        for image in sorted(folder.glob(f"{glob.escape(file.stem)}.*")):
            if image.suffix.lower() in suffixes:
                return Path(os.path.normpath(image))
    return None


def stated_size(root: ET.Element) -> Size | None:
    """(width, height) as the file says; None where it does not, or says 0."""
    try:
        width, height = (float(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _box(thing: ET.Element, size: Size) -> Region:
    label = (thing.findtext("name") or "").strip()
    if not label:
        raise ValueError("it has no name")
    texts = [(thing.findtext(f"bndbox/{name}") or "").strip() for name in ("xmin", "ymin", "xmax", "ymax")]
    try:
        values = [float(text) for text in texts]
    except ValueError:
        raise ValueError(f"the box of its {label} is {texts}, not four numbers") from None
    return box_within(size, (values[0], values[1], values[2], values[3]), label, f"the box of its {label}")


def _tree(sample: Sample) -> ET.Element:
    found = next((annotation for annotation in sample.annotations if annotation.task == "<OD>"), None)
    if found is None:
        raise OpenFlorenceError(f"{sample.path} has no <OD> annotation to write as VOC")
    root = ET.Element("annotation")
    ET.SubElement(root, "filename").text = Path(sample.path).name
    ET.SubElement(root, "path").text = sample.path
    sizes = ET.SubElement(root, "size")
    for name, value in zip(("width", "height", "depth"), (*sample.size, 3), strict=True):
        ET.SubElement(sizes, name).text = f"{value:g}"
    for region in found.regions:
        if region.kind != "box":
            raise OpenFlorenceError(f"{sample.path} has a {region.kind} in its <OD> annotation, VOC holds boxes only")
        if not region.label.strip():
            raise OpenFlorenceError(f"{sample.path} has a box without a label, which VOC cannot hold")
        thing = ET.SubElement(root, "object")
        ET.SubElement(thing, "name").text = region.label
        box = ET.SubElement(thing, "bndbox")
        for name, value in zip(
            ("xmin", "ymin", "xmax", "ymax"), (*region.parts[0][0], *region.parts[0][1]), strict=True
        ):
            ET.SubElement(box, name).text = repr(value).removesuffix(".0")
    return root
