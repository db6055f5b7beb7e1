"""A second transcription of the paper's figures, typed by columns where the first has rows, and without looking at it.

None stands for a cell without a figure. Core-days are in days, without the paper's k.
"""

TABLE_1 = {
    "rows": ["S/32", "S/16", "B/32", "B/16", "L/32", "L/16", "H/14"],
    "layers": [8, 8, 12, 12, 24, 24, 32],
    "patch": [32, 16, 32, 16, 32, 16, 14],
    "hidden": [512, 512, 768, 768, 1024, 1024, 1280],
    "tokens": [49, 196, 49, 196, 49, 196, 256],
    "channels_mlp": [2048, 2048, 3072, 3072, 4096, 4096, 5120],
    "tokens_mlp": [256, 256, 384, 384, 512, 512, 640],
    "parameters": [19, 18, 60, 59, 206, 207, 431],
}
TABLE_2 = {
    "rows": [
        "HaloNet [51]", "Mixer-L/16", "ViT-L/16 [14]", "BiT-R152x4 [22]", "NFNet-F4+ [7]", "Mixer-H/14", "BiT-R152x4 [22]",
        "ViT-H/14 [14]", "MPL [34]", "ALIGN [21]",
    ],
    "imagenet": [85.8, 84.15, 85.30, 85.39, 89.2, 87.94, 87.54, 88.55, 90.0, 88.64],
    "real": [None, 87.86, 88.62, None, None, 90.18, 90.54, 90.72, 91.12, None],
    "avg5": [None, 93.91, 94.39, 94.04, None, 95.71, 95.33, 95.97, None, None],
    "vtab": [None, 74.95, 72.72, 70.64, None, 75.33, 76.29, 77.63, None, 79.99],
    "throughput": [120, 105, 32, 26, 46, 40, 26, 15, None, 15],
    "core_days": [100, 410, 180, 940, 1860, 1010, 9900, 2300, 20480, 14820],
}  # fmt: skip
TABLE_3 = {
    "rows": [
        "Mixer-B/16", "ViT-B/16 (☎)", "Mixer-L/16", "ViT-L/16 (☎)",
        "Mixer-B/16", "ViT-B/16 (☎)", "Mixer-L/16", "ViT-L/16 (☎)", "Mixer-L/16",
        "Mixer-S/32", "Mixer-B/32", "Mixer-S/16", "BiT-R50x1", "Mixer-B/16", "Mixer-L/32", "BiT-R152x1", "BiT-R50x2",
        "BiT-R152x2", "Mixer-L/16", "Mixer-L/16", "ViT-L/16", "Mixer-H/14", "BiT-R200x3", "Mixer-L/16", "ViT-H/14",
        "ViT-L/16 [14]",
    ],
    "pixels": [224] * 8 + [448] + [224] * 14 + [448, 224, 512],
    "epochs": [300] * 9 + [5, 7, 5, 7, 7, 7, 7, 7, 14, 7, 14, 14, 14, 14, 14, 14, 14],
    "imagenet": [
        76.44, 79.67, 71.76, 76.11,
        80.64, 84.59, 82.89, 84.46, 83.91,
        68.70, 75.53, 73.83, 73.69, 80.00, 80.67, 79.12, 78.92, 83.34, 84.05, 84.82, 85.63, 86.32, 84.73, 86.78, 86.65, 87.76,
    ],
    "real": [
        82.36, 84.97, 77.08, 80.93,
        85.80, 88.93, 87.54, 88.35, 87.75,
        75.83, 81.94, 80.60, 81.92, 85.56, 85.62, 86.12, 86.06, 88.90, 88.14, 88.48, 89.16, 89.14, 89.58, 89.72, 89.56, 90.54,
    ],
    "avg5": [
        88.33, 90.79, 87.25, 89.66,
        92.50, 94.16, 93.63, 94.49, 93.86,
        87.13, 90.99, 89.50, None, 92.60, 93.24, None, None, None, 94.51, 94.77, 95.21, 95.49, None, 95.13, 95.57, 95.63,
    ],
    "throughput": [
        1384, 861, 419, 280,
        1384, 861, 419, 280, 105,
        11489, 4208, 3994, 2159, 1384, 1314, 932, 890, 356, 419, 419, 280, 194, 141, 105, 87, 32,
    ],
    "core_days": [
        10, 20, 40, 50,
        150, 180, 410, 550, 410,
        10, 50, 30, 80, 80, 120, 140, 140, 580, 230, 450, 650, 1010, 1780, 450, 2300, 650,
    ],
}  # fmt: skip
TABLE_4 = {
    "rows": ["Mixer-B", "Mixer-L", "Mixer-B", "Mixer-L", "Mixer-S", "Mixer-B", "Mixer-L", "Mixer-H"],
    "epochs": [300, 300, 300, 300, 5, 7, "7/14", 14],
    "learning_rate": [0.001, 0.001, 0.001, 0.001, 0.003, 0.003, 0.001, 0.001],
    "weight_decay": [0.1, 0.1, 0.1, 0.1, 0.03, 0.03, 0.03, 0.03],
    "randaugment": [15, 15, 10, 20, None, None, None, None],
    "mixup": [0.5, 0.5, 0.2, 0.5, None, None, None, None],
    "dropout": [0.0, 0.0, 0.0, 0.0, None, None, None, None],
    "stochastic_depth": [0.1, 0.1, 0.1, 0.1, None, None, None, None],
}
FIGURE_2_LEFT = {
    "rows": [
        "HaloNet [51]", "Mixer-L/16", "ViT-L/16 [14]", "BiT-R152x4 [22]", "Mixer-L/16", "Mixer-H/14", "ViT-L/16 [14]",
        "ViT-H/14 [14]", "BiT-R200x3 [14]", "BiT-R152x4 [22]", "NFNet-F4+ [7]", "MPL [34]", "ALIGN [21]",
    ],
    "core_days": [100, 410, 180, 940, 450, 1010, 650, 2300, 1780, 9900, 1860, 20480, 14820],
    "imagenet": [85.8, 84.15, 85.30, 85.39, 86.94, 87.94, 87.76, 88.55, 87.2, 87.54, 89.2, 90.0, 88.64],
}  # fmt: skip
FIGURE_2_RIGHT = {
    "rows": ["Mixer-B/32", "Mixer-L/32", "Mixer-L/16", "ViT-B/32", "ViT-L/32", "ViT-L/16", "BiT-R152x2"],
    "9M": [35.4, 29.6, 35.4, 38.0, 36.1, 41.9, 52.5],
    "30M": [51.4, 50.1, 54.6, 52.8, 53.5, 59.1, 66.9],
    "91M": [54.2, 63.1, 69.2, 54.7, 63.9, 70.1, 68.9],
    "300M": [54.3, 65.9, 72.0, 55.6, 66.1, 71.6, 69.3],
    "3B": [None, None, 73.6, None, None, 72.9, None],
}
FIGURE_3 = {
    "rows": [
        "Mixer-S/32", "Mixer-B/32", "Mixer-S/16", "Mixer-B/16", "Mixer-L/32", "Mixer-L/16", "Mixer-L/16", "Mixer-H/14",
        "ViT-S/32", "ViT-B/32", "ViT-S/16", "ViT-B/16", "ViT-L/32", "ViT-L/16", "ViT-L/16", "ViT-H/14",
        "BiT-R50x1", "BiT-R152x1", "BiT-R50x2", "BiT-R152x2", "BiT-R152x2", "BiT-R200x3",
    ],
    "epochs": [5, 7, 5, 7, 7, 7, 14, 14, None, 7, None, 7, 7, 7, 14, 14, 7, 7, 7, 7, 14, 14],
    "core_days": [
        34, 51, 34, 81, 117, 225, 451, 1024,
        34, 44, 42, 106, 133, 331, 670, 2350,
        80, 140, 140, 294, 580, 1780,
    ],
    "throughput": [
        11489, 4208, 3994, 1384, 1314, 419, 419, 194,
        7411, 2886, 2174, 861, 915, 281, 281, 88,
        2159, 932, 890, 356, 356, 141,
    ],
    "imagenet": [
        68.70, 75.53, 73.83, 80.00, 80.67, 84.05, 84.82, 86.32,
        71.4, 77.4, 78.0, 82.3, 81.7, 84.8, 85.7, 86.3,
        73.69, 79.12, 78.92, 82.4, 83.34, 84.73,
    ],
}  # fmt: skip
FIGURE_4 = {
    "rows": [
        "original, and patches and pixels permuted", "all pixels permuted", "original", "patches and pixels permuted",
        "all pixels permuted",
    ],
    "25k": [34.4, 8.0, 33.3, 15.6, 5.5],
    "100k": [43.7, 16.4, 39.6, 20.9, 7.3],
    "200k": [47.0, 20.6, 42.2, 22.9, 8.5],
    "300k": [50.9, 24.3, 44.5, 24.3, 9.5],
    "400k": [54.8, 27.8, 47.1, 26.2, 10.5],
    "500k": [60.6, 33.3, 51.1, 29.2, 12.6],
    "518k": [61.5, 34.8, 52.3, 30.7, 12.9],
}  # fmt: skip
SUPPLEMENT_B = {
    "rows": [
        "RandAugment magnitude, 2 layers", "mixup p", "dropout", "stochastic depth", "learning rate", "weight decay",
    ],
    "values": ["0, 10, 15, 20", "0, 0.2, 0.5, 0.8", "0, 0.1", "0, 0.1", "0.003, 0.001", "0.1, 0.01"],
}  # fmt: skip
TRANSCRIPTION = {
    "table1": [TABLE_1], "table2": [TABLE_2], "table3": [TABLE_3], "table4": [TABLE_4],
    "figure2": [FIGURE_2_LEFT, FIGURE_2_RIGHT], "figure3": [FIGURE_3], "figure4": [FIGURE_4],
    "supplement": [SUPPLEMENT_B],
}  # fmt: skip
