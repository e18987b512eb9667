"""Decoding: every kind of image that is fine, and every kind that is not."""

from __future__ import annotations

import copy
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dnad_ray.data import image_files
from dnad_ray.data.image_files import (
    BrokenImagesError,
    broken_images,
    count_levels_of_files,
    decode_images,
    find_full_level,
    read_headers,
)
from dnad_ray.data.images import count_levels
from dnad_ray.errors import DataError

_RGB = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3) * 5
_GREY = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16


def _silent(message, done, total):
    pass


def _decode(path, size=4, channels=3):
    return decode_images([path], size, channels, _silent)[0]


def test_decode_keeps_pixels_of_the_right_size(tmp_path):
    Image.fromarray(_RGB).save(tmp_path / "a.png")
    Image.fromarray(_RGB[::-1]).save(tmp_path / "b.bmp")
    images = decode_images([tmp_path / "a.png", tmp_path / "b.bmp"], 4, 3, _silent)
    assert images.dtype == np.uint8
    assert (images[0] == _RGB.transpose(2, 0, 1)).all()
    assert (images[1] == _RGB[::-1].transpose(2, 0, 1)).all()


def test_decode_crops_the_centre(tmp_path):
    wide = np.zeros((4, 10), np.uint8)
    wide[:, 3:7] = _GREY
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.T.copy()).save(tmp_path / "tall.png")
    assert (_decode(tmp_path / "wide.png", channels=1)[0] == _GREY).all()
    assert (_decode(tmp_path / "tall.png", channels=1)[0] == _GREY.T).all()


def test_decode_resizes_with_antialiasing(tmp_path):
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    image = _decode(tmp_path / "board.png", size=8, channels=1)
    assert np.abs(image.astype(int) - 127).max() <= 3  # without antialiasing it would be 0 or 255


def test_decode_long_thin_image_without_growing_it(tmp_path):
    Image.new("L", (60_000, 1), 7).save(tmp_path / "thin.png")
    assert (_decode(tmp_path / "thin.png", size=224, channels=1) == 7).all()


@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, _RGB),
        (2, _RGB[:, ::-1]),
        (3, _RGB[::-1, ::-1]),
        (4, _RGB[::-1]),
        (5, _RGB.transpose(1, 0, 2)),
        (6, np.rot90(_RGB, -1)),  # the camera was turned: the picture is shown turned clockwise
        (7, _RGB[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(_RGB)),
        (99, _RGB),
    ],
)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_decode_honours_exif_orientation(tmp_path, orientation, seen, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_RGB).save(tmp_path / f"a.{ending}", exif=exif)
    assert (_decode(tmp_path / f"a.{ending}") == seen.transpose(2, 0, 1)).all()


def test_decode_ignores_broken_exif(tmp_path):
    Image.fromarray(_RGB).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nonsense")
    assert (_decode(tmp_path / "a.png") == _RGB.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_every_mode(tmp_path, mode, channels):
    white = {"1": 1, "L": 255, "LA": (255, 9), "P": 0, "RGBA": (255, 255, 255, 9), "CMYK": (0, 0, 0, 0)}
    value = white | {"RGB": (255, 255, 255), "YCbCr": (255, 128, 128), "I;16": 65535}
    image = Image.new(mode, (4, 4), value[mode])
    if mode == "P":
        image.putpalette([255, 255, 255, 0, 0, 0])
        image.info["transparency"] = b"\x80\xff"
    ending = {"CMYK": "tif", "YCbCr": "jpg"}.get(mode, "png")
    image.save(tmp_path / f"a.{ending}")
    assert (_decode(tmp_path / f"a.{ending}", channels=channels) == 255).all()


@pytest.mark.parametrize("ending", ["png", "pgm", "tif"])
def test_decode_scales_16_bits(tmp_path, ending):
    levels = np.array([[0, 257], [65278, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{ending}")
    assert _decode(tmp_path / f"a.{ending}", 2, 1)[0].tolist() == [[0, 1], [254, 255]]


@pytest.mark.parametrize(
    ("highest", "full_level"),
    [(1, 255), (255, 255), (256, 1023), (1023, 1023), (4095, 4095), (16383, 16383), (16384, 65535), (65535, 65535)],
)
def test_full_level_is_that_of_the_bits_in_use(tmp_path, highest, full_level):
    """Pillow's issue 3011: twelve bits in a file of sixteen came out black."""
    for name, kind in (("a.png", np.uint16), ("b.tif", np.int32)):
        Image.fromarray(np.array([[0, highest], [0, 0]], kind)).save(tmp_path / name)
    dark = tmp_path / "dark.png"
    Image.fromarray(np.array([[0, 1], [0, 0]], np.uint16)).save(dark)
    paths = [tmp_path / "a.png", tmp_path / "b.tif", dark]
    assert read_headers(paths, _silent).deep == (0, 1, 2)
    assert find_full_level(paths, _silent) == full_level
    images = decode_images(paths, 2, 1, full_level=full_level)
    # By hand: the share of the range, of 255, rounded down; one image is never made brighter than another.
    assert images[:, 0, 0, 1].tolist() == [highest * 255 // full_level] * 2 + [255 // full_level]


def test_levels_above_the_full_one_are_white(tmp_path):
    Image.fromarray(np.array([[4095, 60_000], [0, 2048]], np.uint16)).save(tmp_path / "a.png")
    assert decode_images([tmp_path / "a.png"], 2, 1, full_level=4095)[0, 0].tolist() == [[255, 255], [0, 127]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_that_is_in_the_transparency_is_seen_on_white(tmp_path, mode, channels):
    """kohya-ss' issue 1269: all glyphs decoded to one black image."""
    shape = np.array([[255, 0], [0, 128]], np.uint8)  # opaque, clear, clear, half
    black = np.zeros((2, 2), np.uint8)
    path, options = tmp_path / "a.png", {}
    if mode == "RGBA":
        image = Image.fromarray(np.dstack([black, black, black, shape]))
    elif mode == "LA":
        image = Image.fromarray(np.dstack([black, shape]), "LA")
    elif mode == "P":
        image = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
        image.putpalette([0, 0, 0] * 3)
        options = {"transparency": b"\xff\x00\x80"}
    else:  # one colour is clear
        image = Image.fromarray(np.dstack([np.array([[0, 9], [9, 127]], np.uint8)] * 3))
        options = {"transparency": (9, 9, 9)}
    image.save(path, **options)
    assert (_decode(path, 2, channels) == [[0, 255], [255, 127]]).all()


def test_opaque_images_keep_their_bits(tmp_path):
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(np.dstack([colours, np.full((9, 9), 255, np.uint8)])).save(tmp_path / "a.png")
    Image.fromarray(colours).save(tmp_path / "b.png")
    for size in (9, 4):
        first, second = decode_images([tmp_path / "a.png", tmp_path / "b.png"], size, 3)
        assert (first == second).all()


def test_all_broken_images_are_named(tmp_path):
    """Not only the first one; the list ends somewhere."""
    Image.fromarray(_RGB).save(tmp_path / "fine.png")
    broken = [tmp_path / f"{index:02d}.png" for index in range(23)]
    for path in broken:
        path.write_bytes(b"")
    paths = [broken[0], tmp_path / "fine.png", *broken[1:]]
    for action in (lambda: decode_images(paths, 4, 3), lambda: read_headers(paths, _silent)):
        with pytest.raises(BrokenImagesError) as caught:
            action()
        assert [path for path, _ in caught.value.broken] == broken
        assert str(caught.value.given).startswith(f"23 files: {broken[0]}, {broken[1]}, ")
        assert str(caught.value.given).endswith(f"{broken[19]} and 3 more")
        again = copy.copy(caught.value)  # as pickle does: it comes out of workers
        assert (str(again), again.broken) == (str(caught.value), caught.value.broken)
    assert broken_images(paths, _silent) == caught.value.broken
    assert broken_images(paths[1:2], _silent) == ()


@pytest.mark.parametrize("values", [np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32)])
def test_decode_refuses_pixels_without_a_scale(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif.*save it with 8 or 16 bits"):
        _decode(tmp_path / "a.tif")


def test_decode_takes_the_first_frame(tmp_path):
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (_decode(tmp_path / "a.gif", channels=1) == 10).all()


def _png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _truncated(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "whole.jpg")
    return (tmp_path / "whole.jpg").read_bytes()[:900]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda folder: b"", id="empty"),
        pytest.param(lambda folder: b"this is no image", id="text"),
        pytest.param(_truncated, id="truncated"),
        pytest.param(lambda folder: _png_header(4, 4), id="no pixels"),
        pytest.param(lambda folder: _png_header(10_000, 10_000), id="large bomb"),
        pytest.param(lambda folder: _png_header(60_000, 60_000), id="huge bomb"),
        pytest.param(lambda folder: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", id="program"),
    ],
)
def test_decode_names_what_is_no_image(tmp_path, content):
    Image.fromarray(_RGB).save(tmp_path / "fine.png")
    (tmp_path / "bad.png").write_bytes(content(tmp_path))
    with pytest.raises(DataError) as caught:
        decode_images([tmp_path / "fine.png"] * 40 + [tmp_path / "bad.png"], 4, 3, _silent)
    assert caught.value.given == str(tmp_path / "bad.png")
    assert "an intact image (" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_headers_refuses_a_bomb_before_decoding(tmp_path):
    (tmp_path / "bomb.png").write_bytes(_png_header(10_000, 10_000))
    with pytest.raises(DataError, match="bomb"):
        read_headers([tmp_path / "bomb.png"], _silent)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(5, 5), (5, 5)], 5),
        ([(300, 300)], 300),
        ([(5, 5), (6, 6)], 8),  # the median 5.5 is below the least that is found
        ([(2, 2)], 8),
        ([(20, 30), (50, 25), (90, 40)], 24),  # shorter sides 20, 25, 40
        ([(5, 4), (5, 4)], 8),
        ([(500, 400), (400, 300)], 224),
    ],
)
def test_read_headers_finds_the_size(tmp_path, sizes, expected):
    paths = [tmp_path / f"{index}.png" for index in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Image.new("L", size).save(path)
    assert read_headers(paths, _silent) == (1, expected, ())


def test_read_headers_is_grey_only_if_all_are(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("I;16", (8, 8)).save(tmp_path / "b.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "c.png")
    paths = sorted(tmp_path.iterdir())
    assert read_headers(paths[:2], _silent)[0] == 1
    assert read_headers(paths, _silent)[0] == 3


def test_progress_counts_up_to_the_total(tmp_path):
    Image.fromarray(_RGB).save(tmp_path / "a.png")
    calls = []
    decode_images([tmp_path / "a.png"] * 40, 4, 3, lambda *call: calls.append(call))
    assert calls == [("decoding images", done, 40) for done in (0, 16, 32, 40)]


@pytest.mark.parametrize("channels", [1, 3])
def test_count_levels_of_files_is_that_of_decoded_images(tmp_path, channels):
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(40)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8)).save(path)
    calls = []
    counts = count_levels_of_files(paths, 6, channels, "counting", lambda *call: calls.append(call))
    assert (counts == count_levels(decode_images(paths, 6, channels))).all()
    assert calls == [("counting", done, 40) for done in (0, 16, 32, 40)]
    paths[33].write_bytes(b"")
    with pytest.raises(DataError, match=r"33\.png"):
        count_levels_of_files(paths, 6, channels, "counting", _silent)


def test_decode_takes_as_many_threads_as_it_is_told(tmp_path, monkeypatch):
    Image.fromarray(_RGB).save(tmp_path / "a.png")
    asked, pool = [], image_files.ThreadPoolExecutor
    monkeypatch.setattr(image_files, "ThreadPoolExecutor", lambda threads: asked.append(threads) or pool(threads))
    for threads in (1, 3):
        assert decode_images([str(tmp_path / "a.png")] * 20, 4, 3, threads=threads).shape == (20, 3, 4, 4)
    assert asked == [1, 3]
