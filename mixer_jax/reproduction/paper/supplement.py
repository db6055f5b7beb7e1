"""Supplements A to C of arXiv 2105.01601, version 4, as far as they are not in Table 4 and Figures 6 and 7."""

from mixer_jax.reproduction.exhibit import TEXT, Column, parse_exhibit

SUPPLEMENT_A = parse_exhibit(
    "Supplement A: things that did not help (pre-training on JFT-300M)",
    [Column("effect", TEXT)],
    """
    Changes of the model
    untied token-mixing MLPs          no noticeable gain
    groups of channels, reshaped      ImageNet 5-shot: less than 1 to 2 points
    groups of channels, learned       ImageNet "top-5": 3 to 4 points for S/32, none at larger scales
    pyramids                          cheaper on JFT with little loss; did not transfer to ImageNet
    Changes of fine-tuning
    mixup                             no consistent gain
    Polyak averaging                  no consistent gain
    inception crops                   no gain
    """,
    notes=["The paper gives no sizes for the changed models, so nobody else can build the same ones."],
)

SUPPLEMENT_B = parse_exhibit(
    "Supplement B: values of the search behind Table 4 (ImageNet and ImageNet-21k)",
    [Column("values", TEXT)],
    """
    Pre-training
    RandAugment magnitude, 2 layers  0, 10, 15, 20
    mixup p                          0, 0.2, 0.5, 0.8
    dropout                          0, 0.1
    stochastic depth                 0, 0.1
    learning rate                    0.003, 0.001
    weight decay                     0.1, 0.01
    """,
    notes=["All combinations are 256 runs for each model and data set. Table 4 has the ones that were chosen."],
)

SUPPLEMENT_C = parse_exhibit(
    "Supplement C: how images are evaluated",
    [Column("crop", TEXT)],
    """
    Images of 224 pixels
    crop (i)   resize to 256 x 256, crop the central 224 x 224
    crop (ii)  resize the shorter side to 256, crop the central 224 x 224
    """,
    notes=[
        "Table 2: crop (i). Table 3: crop (ii), but crop (i) for BiT on ImageNet.",
        "The sizes for images of 448 pixels are not in the paper.",
    ],
)
