"""Draws one printed letter or digit, for the source `glyphs`. Everything but the character is random.

The dataset takes the place of a large pre-training set in a demo that downloads nothing. What a model learns from it must
transfer to characters from another source. In the demo these are the UCI digits, which are handwritten, have 8 x 8 pixels, are
light on dark, and fill the frame. So everything but the character is random: font, stroke thickness, size, proportions, slant,
rotation, position, bending (which imitates how a hand distorts a printed shape), resolution, colors, gradient and noise. Light
ink and low resolution are more frequent than dark ink and full resolution, and the bending is strong, to resemble handwriting.
Size and position vary little on purpose: a Mixer must learn every position separately, and the demo trains for only two minutes
on two CPU cores.

On another kind of processor, the last bit of a floating-point result may differ. In rare cases a pixel then differs by one level.
"""

import functools
import math

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

IMAGE_SIZE = 32  # pixels, both sides of an image

# fmt: off
# These are matplotlib's fonts for text. Its other fonts hold symbols, lack the Latin letters or repeat these shapes.
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic",
    "STIXGeneralBolIta", "cmr10", "cmb10", "cmti10", "cmss10", "cmtt10",
)
# fmt: on

# A master is a signed distance field: the distance of each pixel to the outline, in pixels, positive inside the ink. It is stored
# in bytes, with MASTER_ZERO for a distance of 0. Unlike a bitmap, it can be made smaller without aliasing, and adding a constant
# makes the strokes thicker or thinner.
MASTER_SIZE = 64  # pixels, both sides of a master
MASTER_INK = 40  # pixels, the longer side of the character itself
MASTER_OVERSAMPLING = 4  # The distances are measured on a drawing that is this many times finer.
MASTER_REACH = 6.0  # pixels; distances are clipped to [-MASTER_REACH, MASTER_REACH]
MASTER_ZERO = 128

# The random factors of an image. Each is uniform between its two bounds.
FACTORS = {
    "extent": (22.0, 36.0),  # pixels, the longer side before narrowing (the frame cuts a little off the largest)
    "narrowing": (0.55, 1.1),  # horizontal scale over vertical scale
    "slant": (-0.35, 0.35),  # pixels to the side per pixel of height
    "rotation": (-0.25, 0.25),  # radians
    "position_x": (-0.5, 0.5),  # share of the room beside the character: at -1 and 1 the character touches the frame
    "position_y": (-0.5, 0.5),
    "thickening": (-0.5, 3.0),  # master pixels, added on either side of a stroke
    "is_coarse": (0.0, 1.0),  # below COARSE_SHARE, the drawing loses resolution
    "coarse_extent": (6.5, 11.0),  # coarse pixels, the longer side of the character at the lower resolution
    "contrast": (100.0, 255.0),  # levels between ink and paper, before tint and gradient
    "darkness": (0.0, 1.0),  # share of the levels that the contrast leaves over, to which the darker of ink and paper is set
    "is_dark_on_light": (0.0, 1.0),  # above LIGHT_SHARE, the ink is dark and the paper light
    "tint": (-80.0, 40.0),  # levels, the largest deviation of a channel from gray; below 0 (two images in three), none
    "dirt": (-0.5, 1.0),  # factor of gradient and noise; below 0, none
    "gradient_x": (-30.0, 30.0),  # levels, the change of the paper from the center to the edge
    "gradient_y": (-30.0, 30.0),
    "noise": (0.0, 16.0),  # levels, the largest deviation of a pixel
}
FACTOR_LOW, FACTOR_HIGH = np.array(list(FACTORS.values())).T
COARSE_SHARE = 0.7  # This share of the images loses resolution.
LIGHT_SHARE = 0.7  # This share of the images has light ink on dark paper.
BEND = 5.0  # pixels, the largest coefficient of a bending term

_RAMP = np.linspace(-1.0, 1.0, IMAGE_SIZE, dtype=np.float32)
_X, _Y = (plane.ravel() for plane in np.meshgrid(_RAMP, _RAMP))
# Linear combinations of _PLANE_BASIS are the affine functions of a pixel's position. The functions of _BEND_BASIS are
# chosen so that bending keeps the size and the position of a character.
_PLANE_BASIS = np.stack([np.ones_like(_X), _X, _Y])
_BEND_BASIS = np.stack([_X**2 - 1 / 3, _X * _Y, _Y**2 - 1 / 3, _X**3 - _X, _Y**3 - _Y])
_WARP_BASIS = np.concatenate([_PLANE_BASIS, _BEND_BASIS])


def draw(characters: str, rng: np.random.Generator) -> np.ndarray:
    """Draw one of the characters in one of the fonts, [IMAGE_SIZE, IMAGE_SIZE, 3] uint8."""
    master = _make_master(FONTS[rng.integers(len(FONTS))], characters[rng.integers(len(characters))])
    factors = dict(zip(FACTORS, rng.uniform(FACTOR_LOW, FACTOR_HIGH).tolist(), strict=True))
    return _paint(_render_ink(master, factors, rng), factors, rng)


@functools.cache
def _make_master(font: str, character: str) -> np.ndarray:
    """Return the signed distance field of a character with its ink centered, [MASTER_SIZE, MASTER_SIZE] uint8."""
    fine = MASTER_SIZE * MASTER_OVERSAMPLING
    import matplotlib  # It is heavy, and only its fonts are needed.

    path = f"{matplotlib.get_data_path()}/fonts/ttf/{font}.ttf"
    # Every build of Pillow has the basic layout engine.
    typeface = ImageFont.truetype(path, fine, layout_engine=ImageFont.Layout.BASIC)
    sheet = Image.new("L", (3 * fine, 3 * fine))
    ImageDraw.Draw(sheet).text((fine, fine), character, fill=255, font=typeface)
    ink = np.asarray(sheet.crop(sheet.getbbox()))
    zoom = MASTER_INK * MASTER_OVERSAMPLING / max(ink.shape)
    ink = cv2.resize(ink, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR) > 127
    top, left = ((fine - side) // 2 for side in ink.shape)
    canvas = np.zeros((fine, fine), np.uint8)
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    inside, outside = (cv2.distanceTransform(c, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for c in (canvas, 1 - canvas))
    distance = (inside - outside) / MASTER_OVERSAMPLING
    distance = cv2.resize(distance, (MASTER_SIZE, MASTER_SIZE), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(MASTER_ZERO + distance * (127 / MASTER_REACH)), 0, 255).astype(np.uint8)


def _render_ink(master: np.ndarray, factors: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Return the amount of ink on each pixel, [IMAGE_SIZE, IMAGE_SIZE] uint8."""
    map_x, map_y = (_sample_warp(factors, rng) @ _WARP_BASIS).reshape(2, IMAGE_SIZE, IMAGE_SIZE)
    distance = cv2.remap(master, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    # A pixel on the outline is half covered, and a pixel half a pixel inside it is fully covered. addWeighted clips to [0, 255].
    full = 255 * factors["extent"] / MASTER_INK  # levels of ink per master pixel of distance
    gain = full * MASTER_REACH / 127
    ink = cv2.addWeighted(distance, gain, distance, 0.0, 127.5 + full * factors["thickening"] - gain * MASTER_ZERO)
    if factors["is_coarse"] < COARSE_SHARE:
        side = round(IMAGE_SIZE * factors["coarse_extent"] / factors["extent"])
        ink = cv2.resize(ink, (side, side), interpolation=cv2.INTER_AREA)
        ink = cv2.resize(ink, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)
    return ink


def _sample_warp(factors: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Return the map from positions in the image to positions in the master: coefficients of _WARP_BASIS, [2, 8] float32."""
    down = MASTER_INK / factors["extent"]  # master pixels per image pixel
    across = down / factors["narrowing"]
    cos, sin = math.cos(factors["rotation"]), math.sin(factors["rotation"])
    matrix = np.array([[across, across * factors["slant"]], [0.0, down]]) @ np.array([[cos, sin], [-sin, cos]])
    room = max(IMAGE_SIZE - factors["extent"], 2.0) / 2  # pixels on either side; at least 1, even for the largest characters
    center = (MASTER_SIZE - 1) / 2 - matrix @ (room * factors["position_x"], room * factors["position_y"])
    bend = rng.uniform(-BEND, BEND, (2, len(_BEND_BASIS)))
    half = (IMAGE_SIZE - 1) / 2  # pixels per unit of the ramps
    return np.column_stack([center, matrix * half, matrix @ bend]).astype(np.float32)


def _paint(ink: np.ndarray, factors: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Return the ink on paper, in color and with noise, [IMAGE_SIZE, IMAGE_SIZE, 3] uint8."""
    dark = factors["darkness"] * (255 - factors["contrast"])
    is_light = np.array([0.0, 1.0] if factors["is_dark_on_light"] > LIGHT_SHARE else [1.0, 0.0])  # ink, paper
    tint = max(factors["tint"], 0.0)
    ink_color, paper_color = (dark + factors["contrast"] * is_light)[:, None] + rng.uniform(-tint, tint, (2, 3))
    ink_over_paper = ((ink_color - paper_color) / 255).astype(np.float32)
    dirt = max(factors["dirt"], 0.0)
    gradient = np.broadcast_to([dirt * factors["gradient_x"], dirt * factors["gradient_y"]], (3, 2))
    planes = np.column_stack([paper_color, gradient]).astype(np.float32) @ _PLANE_BASIS
    planes += ink_over_paper[:, None] * ink.ravel()
    noise = np.frombuffer(rng.bytes(planes.size), np.int8).reshape(planes.shape) * np.float32(dirt * factors["noise"] / 128)
    pixels = cv2.add(planes, noise, dtype=cv2.CV_8U)  # This also rounds, and clips to [0, 255].
    return cv2.merge(list(pixels.reshape(3, IMAGE_SIZE, IMAGE_SIZE)))
