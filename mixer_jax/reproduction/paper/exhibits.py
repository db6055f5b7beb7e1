"""The exhibits by the words with which `python -m mixer_jax reproduce` names them."""

from mixer_jax.reproduction.paper import figures, supplement, tables

EXHIBITS = {
    "table1": (tables.TABLE_1,),
    "table2": (tables.TABLE_2,),
    "table3": (tables.TABLE_3,),
    "table4": (tables.TABLE_4,),
    "figure2": (figures.FIGURE_2_LEFT, figures.FIGURE_2_RIGHT),
    "figure3": (figures.FIGURE_3,),
    "figure4": (figures.FIGURE_4,),
    "figure5": (figures.FIGURE_5,),
    "figure6": (figures.FIGURE_6,),
    "figure7": (figures.FIGURE_7,),
    "supplement": (supplement.SUPPLEMENT_A, supplement.SUPPLEMENT_B, supplement.SUPPLEMENT_C),
}
