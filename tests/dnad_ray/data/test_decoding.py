"""The rules of docs/images.md for unusual images: one test for each kind, with pixels worked out by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dnad_ray.data.decoding import decoded
from dnad_ray.data.image_files import read_headers

_RED, _GREEN, _BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _is_all(pixels, colour):
    return (pixels == np.array(colour).reshape(-1, 1, 1)).all()


def test_grey_image_among_coloured_ones_has_three_equal_channels(tmp_path):
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert (decoded(tmp_path / "grey.png", 4, 3) == grey[None]).all()


@pytest.mark.parametrize("ending", ["png", "gif", "bmp", "tif"])
def test_palette_image_has_the_colours_of_its_palette(tmp_path, ending):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*_RED, *_BLUE])
    image.paste(0, (0, 0, 4, 2))
    image.save(tmp_path / f"a.{ending}")
    pixels = decoded(tmp_path / f"a.{ending}", 4, 3)
    assert _is_all(pixels[:, :2], _RED)
    assert _is_all(pixels[:, 2:], _BLUE)


def test_palette_counts_as_coloured_even_where_its_colours_are_grey(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 90, 90, 90])
    image.save(tmp_path / "a.png")
    assert read_headers([tmp_path / "a.png"], lambda *_: None).channels == 3
    assert _is_all(decoded(tmp_path / "a.png", 4, 3), (90, 90, 90))


def test_deep_image_is_scaled_to_the_level_of_white(tmp_path):
    Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(tmp_path / "a.png")
    assert _is_all(decoded(tmp_path / "a.png", 4, 1, 4095), (255,))
    assert _is_all(decoded(tmp_path / "a.png", 4, 1), (15,))  # 4095 * 255 // 65535


@pytest.mark.parametrize(("colour_type", "levels"), [(2, [0x1280, 0x34FF, 0x5600]), (4, [0x1280, 0xFFFF])])
def test_deep_colours_keep_their_upper_8_bits(tmp_path, colour_type, levels):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(f">{len(levels)}H", *levels) * 4  # Pillow cannot write such files
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0))
    content = header + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    expected = (0x12, 0x34, 0x56) if colour_type == 2 else (0x12, 0x12, 0x12)
    assert _is_all(decoded(tmp_path / "a.png", 4, 3), expected)


def test_half_transparent_pixel_is_mixed_with_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 51)).save(tmp_path / "a.png")  # a fifth of red, four fifths of white
    assert _is_all(decoded(tmp_path / "a.png", 4, 3), (255, 204, 204))


def test_image_turned_by_exif_is_upright(tmp_path):
    image = Image.new("RGB", (4, 12), _RED)
    image.paste(_GREEN, (0, 4, 4, 6))  # the upper half of the centre square, as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise: above becomes right
    image.save(tmp_path / "a.png", exif=exif)
    pixels = decoded(tmp_path / "a.png", 4, 3)
    assert _is_all(pixels[:, :, :2], _RED)
    assert _is_all(pixels[:, :, 2:], _GREEN)


@pytest.mark.parametrize("ending", ["gif", "webp", "apng", "tif"])
def test_animation_is_its_first_frame(tmp_path, ending):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (_BLUE, _RED)]
    kind = {"apng": "PNG", "tif": "TIFF"}.get(ending, ending)
    lossless = {"lossless": True} if ending == "webp" else {}
    frames[0].save(tmp_path / f"a.{ending}", kind, save_all=True, append_images=frames[1:], **lossless)
    assert _is_all(decoded(tmp_path / f"a.{ending}", 4, 3), _BLUE)


@pytest.mark.parametrize("upright", [True, False])
def test_very_oblong_image_is_its_centre_square(tmp_path, upright):
    image = Image.new("RGB", (1000, 4), _RED)
    image.paste(_GREEN, (498, 0, 502, 4))
    (image.transpose(Image.Transpose.ROTATE_90) if upright else image).save(tmp_path / "a.png")
    assert _is_all(decoded(tmp_path / "a.png", 4, 3), _GREEN)
