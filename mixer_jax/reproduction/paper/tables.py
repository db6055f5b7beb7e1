"""Tables 1 to 4 of arXiv 2105.01601, version 4."""

from mixer_jax.reproduction.exhibit import ACCURACY, PLANNED, SETTING, SPECIFIED, Column, parse_exhibit

THROUGHPUT = Column("throughput", PLANNED, "images/s/core, TPU v3")
CORE_DAYS = Column("core_days", PLANNED, "TPU-v3 core-days")
IMAGENET = Column("imagenet", ACCURACY, "% top-1")
REAL = Column("real", ACCURACY, "% top-1")
AVG5 = Column("avg5", ACCURACY, "% top-1, mean of 5")
VTAB = Column("vtab", ACCURACY, "% top-1, mean of 19")

TABLE_1 = parse_exhibit(
    "Table 1: specifications of the Mixer models",
    [
        Column("layers", SPECIFIED),
        Column("patch", SPECIFIED, "pixels"),
        Column("hidden", SPECIFIED),
        Column("tokens", SPECIFIED),
        Column("channels_mlp", SPECIFIED),
        Column("tokens_mlp", SPECIFIED),
        Column("parameters", SPECIFIED, "million"),
    ],
    # layers, patch, hidden size C, sequence length S, MLP dimension D_C, MLP dimension D_S, parameters (M)
    """
    S/32   8  32   512   49  2048  256   19
    S/16   8  16   512  196  2048  256   18
    B/32  12  32   768   49  3072  384   60
    B/16  12  16   768  196  3072  384   59
    L/32  24  32  1024   49  4096  512  206
    L/16  24  16  1024  196  4096  512  207
    H/14  32  14  1280  256  5120  640  431
    """,
    notes=["The parameters are those of the body, without the head, for images of 224 pixels."],
)

TABLE_2 = parse_exhibit(
    "Table 2: transfer, compared with the best models of other kinds",
    [IMAGENET, REAL, AVG5, VTAB, THROUGHPUT, CORE_DAYS],
    """
    ImageNet-21k
    HaloNet [51]      85.8      -      -      -  120   0.10k
    Mixer-L/16       84.15  87.86  93.91  74.95  105   0.41k
    ViT-L/16 [14]    85.30  88.62  94.39  72.72   32   0.18k
    BiT-R152x4 [22]  85.39      -  94.04  70.64   26   0.94k
    JFT-300M
    NFNet-F4+ [7]     89.2      -      -      -   46   1.86k
    Mixer-H/14       87.94  90.18  95.71  75.33   40   1.01k
    BiT-R152x4 [22]  87.54  90.54  95.33  76.29   26   9.90k
    ViT-H/14 [14]    88.55  90.72  95.97  77.63   15   2.30k
    Unlabelled or weakly labelled
    MPL [34]          90.0  91.12      -      -    -  20.48k
    ALIGN [21]       88.64      -      -  79.99   15  14.82k
    """,
    spread=0.1,
    notes=[
        "Mixer is fine-tuned at 448 pixels and evaluated with crop (i) of supplement C.",
        "The paper averages three fine-tuning runs, whose standard deviation is below 0.1.",
        "Footnote 2, at lower resolutions: Mixer-L/16 at 224 has 82.84 at 420 images/s/core, ViT-L/16 at 384 has 85.15 at 80, "
        "and HaloNet at 384 has 85.5 at 258.",
    ],
)

TABLE_3 = parse_exhibit(
    "Table 3: Mixer and other models, by data of pre-training and size",
    [Column("pixels", SETTING), Column("epochs", SETTING), IMAGENET, REAL, AVG5, THROUGHPUT, CORE_DAYS],
    """
    ImageNet
    Mixer-B/16       224  300  76.44  82.36  88.33   1384  0.01k‡
    ViT-B/16 (☎)     224  300  79.67  84.97  90.79    861  0.02k‡
    Mixer-L/16       224  300  71.76  77.08  87.25    419  0.04k‡
    ViT-L/16 (☎)     224  300  76.11  80.93  89.66    280  0.05k‡
    ImageNet-21k
    Mixer-B/16       224  300  80.64  85.80  92.50   1384  0.15k‡
    ViT-B/16 (☎)     224  300  84.59  88.93  94.16    861  0.18k‡
    Mixer-L/16       224  300  82.89  87.54  93.63    419  0.41k‡
    ViT-L/16 (☎)     224  300  84.46  88.35  94.49    280  0.55k‡
    Mixer-L/16       448  300  83.91  87.75  93.86    105  0.41k‡
    JFT-300M
    Mixer-S/32       224    5  68.70  75.83  87.13  11489  0.01k
    Mixer-B/32       224    7  75.53  81.94  90.99   4208  0.05k
    Mixer-S/16       224    5  73.83  80.60  89.50   3994  0.03k
    BiT-R50x1        224    7  73.69  81.92      -   2159  0.08k
    Mixer-B/16       224    7  80.00  85.56  92.60   1384  0.08k
    Mixer-L/32       224    7  80.67  85.62  93.24   1314  0.12k
    BiT-R152x1       224    7  79.12  86.12      -    932  0.14k
    BiT-R50x2        224    7  78.92  86.06      -    890  0.14k
    BiT-R152x2       224   14  83.34  88.90      -    356  0.58k
    Mixer-L/16       224    7  84.05  88.14  94.51    419  0.23k
    Mixer-L/16       224   14  84.82  88.48  94.77    419  0.45k
    ViT-L/16         224   14  85.63  89.16  95.21    280  0.65k
    Mixer-H/14       224   14  86.32  89.14  95.49    194  1.01k
    BiT-R200x3       224   14  84.73  89.58      -    141  1.78k
    Mixer-L/16       448   14  86.78  89.72  95.13    105  0.45k
    ViT-H/14         224   14  86.65  89.56  95.57     87  2.30k
    ViT-L/16 [14]    512   14  87.76  90.54  95.63     32  0.65k
    """,
    spread=0.15,
    notes=[
        "Evaluated with crop (ii) of supplement C; the BiT models on ImageNet with crop (i).",
        "The paper averages three fine-tuning runs, whose standard deviation is below 0.15.",
        "ImageNet and ImageNet-21k: with extra regularization. Core-days there (‡) are extrapolated by the paper.",
    ],
)

TABLE_4 = parse_exhibit(
    "Table 4: hyperparameters of Mixer's pre-training (supplement B)",
    [
        Column("epochs", SPECIFIED),
        Column("learning_rate", SPECIFIED),
        Column("weight_decay", SPECIFIED),
        Column("randaugment", SPECIFIED, "magnitude m, 2 layers"),
        Column("mixup", SPECIFIED, "p of Beta(p, p)"),
        Column("dropout", SPECIFIED),
        Column("stochastic_depth", SPECIFIED),
    ],
    """
    ImageNet
    Mixer-B   300  0.001   0.1  15  0.5  0.0  0.1
    Mixer-L   300  0.001   0.1  15  0.5  0.0  0.1
    ImageNet-21k
    Mixer-B   300  0.001   0.1  10  0.2  0.0  0.1
    Mixer-L   300  0.001   0.1  20  0.5  0.0  0.1
    JFT-300M
    Mixer-S     5  0.003  0.03   -    -    -    -
    Mixer-B     7  0.003  0.03   -    -    -    -
    Mixer-L  7/14  0.001  0.03   -    -    -    -
    Mixer-H    14  0.001  0.03   -    -    -    -
    """,
    notes=["On JFT-300M, the paper uses no RandAugment, mixup, dropout or stochastic depth."],
)
