"""Pictures in, tensors out: the arithmetic compared with torchvision's, and every kind of bad file."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from effkernels.preprocessing import MAX_ASPECT_RATIO, Preprocessing, read_image
from oracles import oracle

PIL_Image = pytest.importorskip("PIL.Image")

SIZES = [(300, 200), (200, 300), (224, 224), (256, 256), (37, 91), (1, 1), (640, 333)]


@pytest.fixture
def picture(seed: int):
    """Makes a random RGB picture of a given (width, height)."""
    rng = np.random.default_rng(seed)

    def make(width: int, height: int):
        return PIL_Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return make


class TestTransform:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
    def test_is_the_evaluation_transform_of_torchvision(self, picture, size, interpolation):
        transforms = oracle("torchvision.transforms")
        ours = Preprocessing(size=224, crop_fraction=0.875, interpolation=interpolation)
        theirs = transforms.Compose(
            [
                transforms.Resize(256, transforms.InterpolationMode(interpolation)),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(ours.mean, ours.std),
            ]
        )
        image = picture(*size)
        assert torch.equal(ours(image), theirs(image))

    @pytest.mark.parametrize("name", ["tf_efficientnet_b3.aa_in1k", "tf_efficientnet_lite4.in1k"])
    def test_is_the_evaluation_transform_of_timm(self, picture, name):
        timm_data, timm_models = oracle("timm.data"), oracle("timm.models")
        config = timm_models.get_pretrained_cfg(name).to_dict()
        theirs = timm_data.create_transform(**timm_data.resolve_data_config({}, config))
        ours = Preprocessing(
            config["mean"],
            config["std"],
            config["input_size"][-1],
            config["crop_pct"],
            config["interpolation"],
        )
        image = picture(500, 401)
        assert torch.equal(ours(image), theirs(image))

    @pytest.mark.parametrize("size", SIZES)
    def test_result_is_a_contiguous_float32_square(self, picture, size):
        result = Preprocessing(size=32)(picture(*size))
        assert result.shape == (3, 32, 32)
        assert result.dtype == torch.float32
        assert result.is_contiguous()

    def test_a_uniform_picture_stays_uniform_and_is_normalised(self):
        grey = PIL_Image.new("RGB", (50, 40), (51, 102, 255))
        result = Preprocessing(mean=(0.2, 0.2, 0.5), std=(1.0, 0.5, 0.25), size=16)(grey)
        expected = torch.tensor([0.0, 0.4, 2.0])[:, None, None].expand(3, 16, 16)
        assert torch.allclose(result, expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("size", "fraction", "resized"),
        [
            (224, 0.875, 256),
            (300, 0.904, 331),  # rounded down: 331.86
            (240, 240 / 255, 255),  # a ratio must give the whole number that it was computed from
            (380, 380 / 384, 384),
            (288, 1.0, 288),
        ],
    )
    def test_shorter_side_before_the_crop(self, size, fraction, resized):
        assert Preprocessing(size=size, crop_fraction=fraction).resized == resized

    @pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "RGBA", "LA", "I;16"])
    def test_accepts_images_of_any_mode(self, mode):
        assert Preprocessing(size=8)(PIL_Image.new(mode, (20, 10))).shape == (3, 8, 8)

    def test_accepts_a_path(self, picture, tmp_path: Path):
        image = picture(40, 30)
        image.save(tmp_path / "picture.png")
        transform = Preprocessing(size=16)
        assert torch.equal(transform(tmp_path / "picture.png"), transform(image))

    def test_refuses_extreme_aspect_ratios_before_resizing(self):
        limit = MAX_ASPECT_RATIO
        assert Preprocessing(size=8)(PIL_Image.new("RGB", (limit, 1))).shape == (3, 8, 8)
        with pytest.raises(ValueError, match=f"{limit + 1} x 1 pixels, narrower than"):
            Preprocessing(size=8)(PIL_Image.new("RGB", (limit + 1, 1)))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"mean": (0.5,)}, "mean must be three"),
            ({"mean": (0.5, 0.5, float("nan"))}, "mean must be three finite"),
            ({"std": (0.5, 0.5, 0.0)}, "std must be above 0"),
            ({"size": 0}, "size must be"),
            ({"size": 224.0}, "size must be a whole number"),
            ({"size": True}, "size must be a whole number"),
            ({"crop_fraction": 0.0}, "crop_fraction must lie in"),
            ({"crop_fraction": 1.1}, "crop_fraction must lie in"),
            ({"crop_fraction": float("nan")}, "crop_fraction must lie in"),
            ({"interpolation": "nearest"}, "interpolation must be"),
        ],
    )
    def test_refuses_bad_values(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Preprocessing(**arguments)

    def test_lists_become_tuples_so_that_it_hashes_and_compares(self):
        from_json = Preprocessing(mean=[0.5] * 3, std=[0.5] * 3)
        assert from_json == Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
        assert hash(from_json)


def pixel(path: Path, at: tuple[int, int] = (0, 0)) -> tuple[int, int, int]:
    image = read_image(path)
    assert image.mode == "RGB"
    return image.getpixel(at)


class TestReadImage:
    @pytest.mark.parametrize(
        ("mode", "color", "suffix", "expected"),
        [
            ("L", 77, "png", (77, 77, 77)),
            ("1", 1, "png", (255, 255, 255)),
            ("P", 3, "png", None),
            ("CMYK", (255, 0, 0, 0), "tif", (0, 255, 255)),
            ("CMYK", (255, 0, 0, 0), "jpg", (0, 255, 255)),
            ("LAB", (255, 128, 128), "tif", None),
            ("I;16", 65535, "png", (255, 255, 255)),
            ("I;16", 32896, "png", (128, 128, 128)),  # clipped to 8 bits it would be white
            ("I;16", 200, "tif", (1, 1, 1)),
            ("I", 65535, "tif", (255, 255, 255)),
            ("RGBA", (10, 20, 30, 255), "png", (10, 20, 30)),
            ("RGBA", (10, 20, 30, 0), "png", (255, 255, 255)),
            ("RGBA", (0, 0, 0, 51), "png", (204, 204, 204)),
            ("LA", (0, 0), "png", (255, 255, 255)),
            ("LA", (9, 255), "png", (9, 9, 9)),
        ],
    )
    def test_modes(self, tmp_path: Path, mode, color, suffix, expected):
        path = tmp_path / f"picture.{suffix}"
        PIL_Image.new(mode, (4, 4), color).save(path)
        found = pixel(path)
        if expected is not None:
            assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= (
                2 if suffix == "jpg" else 0
            )

    def test_palette_with_transparency_is_composited_over_white(self, tmp_path: Path):
        image = PIL_Image.new("P", (2, 1))
        image.putpalette([255, 0, 0, 0, 255, 0])
        image.putdata([0, 1])
        image.save(tmp_path / "palette.png", transparency=0)
        assert pixel(tmp_path / "palette.png", (0, 0)) == (255, 255, 255)
        assert pixel(tmp_path / "palette.png", (1, 0)) == (0, 255, 0)

    def test_transparent_colour_of_an_opaque_mode(self, tmp_path: Path):
        PIL_Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "key.png", transparency=(1, 2, 3))
        assert pixel(tmp_path / "key.png") == (255, 255, 255)

    def test_sixteen_bits_are_scaled_and_rounded(self):
        values = np.arange(65536, dtype=np.uint16)
        image = PIL_Image.fromarray(values.reshape(256, 256))
        transform = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=256, crop_fraction=1.0)
        found = (transform(image)[0] * 255).round().flatten().numpy()
        assert np.array_equal(found, np.rint(values * (255 / 65535)))

    @pytest.mark.parametrize("dtype", ["<u2", ">u2"])
    def test_sixteen_bits_in_either_byte_order(self, tmp_path: Path, dtype):
        order = "I;16" if dtype == "<u2" else "I;16B"
        raw = np.full((3, 3), 0x80FF, dtype=dtype)
        PIL_Image.frombytes(order, (3, 3), raw.tobytes()).save(tmp_path / "grey.tif")
        assert pixel(tmp_path / "grey.tif") == (128, 128, 128)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, picture, tmp_path: Path, orientation):
        upright = picture(6, 4)
        # A camera stores the inverse of the rotation that the tag asks for.
        undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
        stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
        exif = PIL_Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / "turned.png", exif=exif)
        assert np.array_equal(read_image(tmp_path / "turned.png"), upright)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    def test_broken_exif_does_not_lose_the_picture(self, tmp_path: Path):
        path = tmp_path / "exif.jpg"
        PIL_Image.new("RGB", (5, 3), (9, 9, 9)).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
        assert read_image(path).size == (5, 3)

    def test_first_frame_of_an_animation(self, tmp_path: Path):
        frames = [PIL_Image.new("RGB", (3, 3), color) for color in ("red", "blue")]
        frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
        assert pixel(tmp_path / "moving.gif") == (255, 0, 0)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")
    @pytest.mark.parametrize("length", [1, 20, 60, 200])
    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tif", "bmp"])
    def test_truncated_files(self, picture, tmp_path: Path, suffix, length):
        path = tmp_path / f"cut.{suffix}"
        picture(64, 64).save(path)
        path.write_bytes(path.read_bytes()[:length])
        self.check_refused(path, "not a picture|truncated|corrupt|decode|file|image|webp|size")

    def test_corrupt_pixels(self, picture, tmp_path: Path):
        path = tmp_path / "noise.png"
        picture(64, 64).save(path)
        data = bytearray(path.read_bytes())
        data[60:-20] = bytes(len(data) - 80)
        path.write_bytes(data)
        self.check_refused(path, "truncated or corrupt|not a picture|broken")

    def test_empty_file(self, tmp_path: Path):
        (tmp_path / "empty.png").touch()
        self.check_refused(tmp_path / "empty.png", "the file is empty")

    def test_not_a_picture(self, tmp_path: Path):
        (tmp_path / "notes.jpg").write_text("not a picture\n")
        self.check_refused(tmp_path / "notes.jpg", "not a picture")

    def test_missing_file(self, tmp_path: Path):
        self.check_refused(tmp_path / "nowhere.jpg", "no such file")

    def test_folder(self, tmp_path: Path):
        self.check_refused(tmp_path, "it is a folder")

    def test_decompression_bomb(self, tmp_path: Path):
        def chunk(kind: bytes, data: bytes) -> bytes:
            checksum = zlib.crc32(kind + data)
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

        header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
        path = tmp_path / "bomb.png"
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(bytes(100)))
            + chunk(b"IEND", b"")
        )
        self.check_refused(path, "too large")

    @pytest.mark.parametrize(
        ("mode", "value"), [("F", 0.5), ("I", 70000), ("I", -1)], ids=["float", "wide", "negative"]
    )
    def test_pixels_without_a_known_range(self, tmp_path: Path, mode, value):
        path = tmp_path / "scientific.tif"
        PIL_Image.new(mode, (2, 2), value).save(path)
        self.check_refused(path, "no known range")

    def test_missing_pillow_names_the_extra(self, monkeypatch, tmp_path: Path):
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
        with pytest.raises(ImportError, match=r'pip install "effkernels\[cli\]"'):
            read_image(tmp_path / "picture.png")
        with pytest.raises(ImportError, match="needs Pillow"):
            Preprocessing()(tmp_path / "picture.png")

    @staticmethod
    def check_refused(path: Path, reason: str) -> None:
        with pytest.raises(ValueError, match=reason) as caught:
            read_image(path)
        message = str(caught.value)
        assert message.startswith(f"cannot read picture {str(path)!r}: ")
        assert "\n" not in message
