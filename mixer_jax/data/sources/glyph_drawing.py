"""The drawing of one printed letter or digit, random in everything but the character. Which are drawn when: glyphs.py.

Why the images look as they do.  The data set stands in for a large upstream set where a demo may download nothing: what
it teaches has to carry over to characters from another source (the demo's: the UCI digits, which are handwritten, 8x8
pixels, light on dark and fill the frame).  So everything but the character is random: font, stroke thickness, size,
proportions, slant, rotation, place, bend (as a hand bends a printed shape), resolution, colors, gradient and noise.
Light ink and low resolution are drawn more often than the rest, and strong bends make up for what print lacks.
Size and place vary little on purpose: a Mixer learns each place anew, and two minutes on two CPU cores go only so far.

On another kind of processor the last bit of the floating-point arithmetic may differ, and with it, rarely, a pixel by
one level.
"""

import functools
import math

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

IMAGE_SIZE = 32  # pixels, both sides of an image

# fmt: off
# The text faces among matplotlib's fonts.  The others hold symbols, lack the Latin letters or repeat these shapes.
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic",
    "STIXGeneralBolIta", "cmr10", "cmb10", "cmti10", "cmss10", "cmtt10",
)
# fmt: on

# A master is a signed distance field: distance to the outline in pixels, positive in the ink, stored as bytes around
# MASTER_ZERO.  Unlike a bitmap it shrinks without aliasing, and moving its zero makes the strokes thicker or thinner.
MASTER_SIZE = 64  # pixels, both sides of a master
MASTER_INK = 40  # pixels, the longer side of the character itself
MASTER_OVERSAMPLING = 4  # the distances are measured on a drawing this many times finer
MASTER_REACH = 6.0  # pixels, distances are clipped to +- this
MASTER_ZERO = 128

# What is drawn at random for every image: uniformly between the two bounds.
DIALS = {
    "extent": (22.0, 36.0),  # pixels, the longer side before narrowing (the frame cuts a little off the largest)
    "narrowing": (0.55, 1.1),  # horizontal scale over vertical scale
    "slant": (-0.35, 0.35),  # pixels to the side per pixel of height
    "rotation": (-0.25, 0.25),  # radians
    "place_x": (-0.5, 0.5),  # of the room around the character: -1 and 1 touch the frame
    "place_y": (-0.5, 0.5),
    "thickening": (-0.5, 3.0),  # master pixels, added on either side of a stroke
    "is_coarse": (0.0, 1.0),  # below COARSE_SHARE: the drawing loses resolution
    "coarse_extent": (6.5, 11.0),  # coarse pixels, the longer side of the character at the lost resolution
    "contrast": (100.0, 255.0),  # levels between ink and paper, before tint and gradient
    "darkness": (0.0, 1.0),  # of the room that the contrast leaves: where the darker one of the two lies
    "is_dark_on_light": (0.0, 1.0),  # above LIGHT_SHARE: dark ink on light paper
    "tint": (-80.0, 40.0),  # levels, the largest deviation of a channel from grey; below 0: none, two images in three
    "dirt": (-0.5, 1.0),  # how much of gradient and noise there is; below 0: none
    "gradient_x": (-30.0, 30.0),  # levels, the change of the paper from the centre to the edge
    "gradient_y": (-30.0, 30.0),
    "noise": (0.0, 16.0),  # levels, the largest deviation of a pixel
}
DIAL_LOW, DIAL_HIGH = np.array(list(DIALS.values())).T
COARSE_SHARE = 0.7
LIGHT_SHARE = 0.7  # of the images have light ink on dark paper
BEND = 5.0  # pixels, the largest coefficient of a bending term

_RAMP = np.linspace(-1.0, 1.0, IMAGE_SIZE, dtype=np.float32)
_X, _Y = (plane.ravel() for plane in np.meshgrid(_RAMP, _RAMP))
_PLANE_BASIS = np.stack([np.ones_like(_X), _X, _Y])  # their combinations are the affine functions of a pixel's place
_BEND_BASIS = np.stack([_X**2 - 1 / 3, _X * _Y, _Y**2 - 1 / 3, _X**3 - _X, _Y**3 - _Y])  # they keep size and place
_WARP_BASIS = np.concatenate([_PLANE_BASIS, _BEND_BASIS])


def draw(characters: str, rng: np.random.Generator) -> np.ndarray:
    """Draw one of the characters in one of the fonts, [IMAGE_SIZE, IMAGE_SIZE, 3] uint8."""
    master = _master(FONTS[rng.integers(len(FONTS))], characters[rng.integers(len(characters))])
    dials = dict(zip(DIALS, rng.uniform(DIAL_LOW, DIAL_HIGH).tolist(), strict=True))
    return _paint(_ink(master, dials, rng), dials, rng)


@functools.cache
def _master(font: str, character: str) -> np.ndarray:
    """The signed distance field of a character with its ink centred, [MASTER_SIZE, MASTER_SIZE] uint8."""
    fine = MASTER_SIZE * MASTER_OVERSAMPLING
    path = f"{matplotlib.get_data_path()}/fonts/ttf/{font}.ttf"
    typeface = ImageFont.truetype(path, fine, layout_engine=ImageFont.Layout.BASIC)  # every build of Pillow has it
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


def _ink(master: np.ndarray, dials: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """How much ink each pixel holds, [IMAGE_SIZE, IMAGE_SIZE] uint8."""
    map_x, map_y = (_warp(dials, rng) @ _WARP_BASIS).reshape(2, IMAGE_SIZE, IMAGE_SIZE)
    distance = cv2.remap(master, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    # A pixel on the outline is half inked, one that lies half a pixel inside is full.  addWeighted clips to 0..255.
    full = 255 * dials["extent"] / MASTER_INK  # levels of ink per master pixel of distance
    gain = full * MASTER_REACH / 127
    ink = cv2.addWeighted(distance, gain, distance, 0.0, 127.5 + full * dials["thickening"] - gain * MASTER_ZERO)
    if dials["is_coarse"] < COARSE_SHARE:
        side = round(IMAGE_SIZE * dials["coarse_extent"] / dials["extent"])
        ink = cv2.resize(ink, (side, side), interpolation=cv2.INTER_AREA)
        ink = cv2.resize(ink, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_LINEAR)
    return ink


def _warp(dials: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """The map from places in the image to places in the master: coefficients over _WARP_BASIS, [2, 8] float32."""
    down = MASTER_INK / dials["extent"]  # master pixels per image pixel
    across = down / dials["narrowing"]
    cos, sin = math.cos(dials["rotation"]), math.sin(dials["rotation"])
    matrix = np.array([[across, across * dials["slant"]], [0.0, down]]) @ np.array([[cos, sin], [-sin, cos]])
    room = max(IMAGE_SIZE - dials["extent"], 2.0) / 2  # pixels on either side; a little even for the largest
    centre = (MASTER_SIZE - 1) / 2 - matrix @ (room * dials["place_x"], room * dials["place_y"])
    bend = rng.uniform(-BEND, BEND, (2, len(_BEND_BASIS)))
    half = (IMAGE_SIZE - 1) / 2  # pixels per unit of the ramps
    return np.column_stack([centre, matrix * half, matrix @ bend]).astype(np.float32)


def _paint(ink: np.ndarray, dials: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """The ink on paper, in colour and with noise, [IMAGE_SIZE, IMAGE_SIZE, 3] uint8."""
    dark = dials["darkness"] * (255 - dials["contrast"])
    is_light = np.array([0.0, 1.0] if dials["is_dark_on_light"] > LIGHT_SHARE else [1.0, 0.0])  # ink, paper
    tint = max(dials["tint"], 0.0)
    ink_colour, paper_colour = (dark + dials["contrast"] * is_light)[:, None] + rng.uniform(-tint, tint, (2, 3))
    ink_over_paper = ((ink_colour - paper_colour) / 255).astype(np.float32)
    dirt = max(dials["dirt"], 0.0)
    gradient = np.broadcast_to([dirt * dials["gradient_x"], dirt * dials["gradient_y"]], (3, 2))
    planes = np.column_stack([paper_colour, gradient]).astype(np.float32) @ _PLANE_BASIS
    planes += ink_over_paper[:, None] * ink.ravel()
    noise = np.frombuffer(rng.bytes(planes.size), np.int8).reshape(planes.shape) * np.float32(dirt * dials["noise"] / 128)
    pixels = cv2.add(planes, noise, dtype=cv2.CV_8U)  # rounds, and clips to 0..255
    return cv2.merge(list(pixels.reshape(3, IMAGE_SIZE, IMAGE_SIZE)))
