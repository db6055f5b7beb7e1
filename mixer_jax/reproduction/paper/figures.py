"""Figures 2 to 7 of arXiv 2105.01601, version 4. Most of their figures were read off the drawings (~)."""

from mixer_jax.reproduction.exhibit import ACCURACY, SETTING, TEXT, Column, parse_exhibit
from mixer_jax.reproduction.paper.tables import CORE_DAYS, IMAGENET, THROUGHPUT

FIGURE_2_LEFT = parse_exhibit(
    "Figure 2, left: ImageNet top-1 over core-days of pre-training",
    [IMAGENET, CORE_DAYS],
    """
    ImageNet-21k
    HaloNet [51]       85.8   0.10k
    Mixer-L/16        84.15   0.41k
    ViT-L/16 [14]     85.30   0.18k
    BiT-R152x4 [22]   85.39   0.94k
    JFT-300M
    Mixer-L/16       ~86.94   0.45k
    Mixer-H/14        87.94   1.01k
    ViT-L/16 [14]     87.76   0.65k
    ViT-H/14 [14]     88.55   2.30k
    BiT-R200x3 [14]  ~87.2    1.78k
    BiT-R152x4 [22]   87.54   9.90k
    NFNet-F4+ [7]     89.2    1.86k
    Unlabelled or weakly labelled
    MPL [34]          90.0   20.48k
    ALIGN [21]        88.64  14.82k
    """,
    spread=0.1,
    notes=["Dashed frontier: HaloNet, Mixer-L/16, ViT-L/16, Mixer-H/14, NFNet-F4+, MPL."],
)

FIGURE_2_RIGHT = parse_exhibit(
    "Figure 2, right: linear 5-shot ImageNet top-1 over the number of images of pre-training",
    [Column(images, ACCURACY, "% top-1, 5 shots") for images in ("9M", "30M", "91M", "300M", "3B")],
    # 3, 10, 30 and 100 % of JFT-300M, and JFT-3B
    """
    JFT-300M
    Mixer-B/32  ~35.4  ~51.4  ~54.2  ~54.3      -
    Mixer-L/32  ~29.6  ~50.1  ~63.1  ~65.9      -
    Mixer-L/16  ~35.4  ~54.6  ~69.2  ~72.0  ~73.6
    ViT-B/32    ~38.0  ~52.8  ~54.7  ~55.6      -
    ViT-L/32    ~36.1  ~53.5  ~63.9  ~66.1      -
    ViT-L/16    ~41.9  ~59.1  ~70.1  ~71.6  ~72.9
    BiT-R152x2  ~52.5  ~66.9  ~68.9  ~69.3      -
    """,
    notes=[
        "233, 70, 23 and 7 epochs on 3, 10, 30 and 100 % of JFT-300M, and as many steps on JFT-3B; stopped early by the best "
        "validation.",
        "The legend and the caption contradict each other about the line styles. The rows follow the legend, whose ViT curves "
        "are those of the ViT paper.",
    ],
)

FIGURE_3 = parse_exhibit(
    "Figure 3: ImageNet top-1 over core-days and over throughput, pre-trained on JFT-300M, at 224 pixels",
    [Column("epochs", SETTING), IMAGENET, THROUGHPUT, CORE_DAYS],
    """
    JFT-300M
    Mixer-S/32   5   68.70  11489     ~34
    Mixer-B/32   7   75.53   4208     ~51
    Mixer-S/16   5   73.83   3994     ~34
    Mixer-B/16   7   80.00   1384     ~81
    Mixer-L/32   7   80.67   1314    ~117
    Mixer-L/16   7   84.05    419    ~225
    Mixer-L/16  14   84.82    419    ~451
    Mixer-H/14  14   86.32    194   ~1024
    ViT-S/32     -  ~71.4   ~7411     ~34
    ViT-B/32     7  ~77.4   ~2886     ~44
    ViT-S/16     -  ~78.0   ~2174     ~42
    ViT-B/16     7  ~82.3    ~861    ~106
    ViT-L/32     7  ~81.7    ~915    ~133
    ViT-L/16     7  ~84.8    ~281    ~331
    ViT-L/16    14  ~85.7    ~281    ~670
    ViT-H/14    14  ~86.3     ~88   ~2350
    BiT-R50x1    7   73.69   2159   0.08k
    BiT-R152x1   7   79.12    932   0.14k
    BiT-R50x2    7   78.92    890   0.14k
    BiT-R152x2   7  ~82.4    ~356    ~294
    BiT-R152x2  14   83.34    356   0.58k
    BiT-R200x3  14   84.73    141   1.78k
    """,
    spread=0.15,
    notes=[
        "The figures that were not read off the drawing are those of Table 3, whose points it has.",
        "Which marker is which ViT follows from its throughput. The drawing has Mixer-S/32 at 34 core-days where Table 3 has "
        "0.01k, and ViT-H/14 at 86.3 where Table 3 has 86.65.",
    ],
)

FIGURE_4 = parse_exhibit(
    "Figure 4: linear 5-shot ImageNet top-1 while pre-training on JFT-300M with permuted inputs, by step",
    [Column(f"{step}k", ACCURACY, "% top-1, 5 shots") for step in (25, 100, 200, 300, 400, 500, 518)],
    """
    Mixer-B/16
    original                     ~34.4  ~43.7  ~47.0  ~50.9  ~54.8  ~60.6  ~61.5
    patches and pixels permuted  ~34.4  ~43.7  ~47.0  ~50.9  ~54.8  ~60.6  ~61.5
    all pixels permuted           ~8.0  ~16.4  ~20.6  ~24.3  ~27.8  ~33.3  ~34.8
    BiT-R50x1
    original                     ~33.3  ~39.6  ~42.2  ~44.5  ~47.1  ~51.1  ~52.3
    patches and pixels permuted  ~15.6  ~20.9  ~22.9  ~24.3  ~26.2  ~29.2  ~30.7
    all pixels permuted           ~5.5   ~7.3   ~8.5   ~9.5  ~10.5  ~12.6  ~12.9
    """,
    notes=[
        "For Mixer-B/16 the paper's curves of the original and of permuted patches and pixels coincide, so both rows have the "
        "same figures.",
        "518k is the last step. The figures of the other columns are those of exactly these steps.",
    ],
)

FIGURE_5 = parse_exhibit(
    "Figure 5: hidden units of the first three token-mixing MLPs, each with the one of opposite phase",
    [Column("picture", TEXT)],
    """
    Mixer-B/16 on JFT-300M
    first token-mixing MLP   input weights of hidden units as 14 x 14 pixels
    second token-mixing MLP  input weights of hidden units as 14 x 14 pixels
    third token-mixing MLP   input weights of hidden units as 14 x 14 pixels
    """,
    notes=["Pairs are sorted by frequency, low first. The paper does not define how. The screenshot shows 32 pairs of each MLP."],
)

FIGURE_6 = parse_exhibit(
    "Figure 6 (supplement D): all hidden units of the first two token-mixing MLPs, by data of pre-training",
    [Column("first_mlp", TEXT), Column("second_mlp", TEXT)],
    """
    Mixer-B/16
    ImageNet      all 384 units  all 384 units
    ImageNet-21k  all 384 units  all 384 units
    JFT-300M      all 384 units  all 384 units
    """,
    notes=["That the columns of the drawing are in this order is our inference."],
)

FIGURE_7 = parse_exhibit(
    "Figure 7 (supplement D): linear projection units of the stem",
    [Column("picture", TEXT)],
    """
    JFT-300M
    Mixer-B/16  filters of 16 x 16 pixels in color
    Mixer-B/32  filters of 32 x 32 pixels in color
    """,
    notes=["How many units the drawing shows is not known to us."],
)
