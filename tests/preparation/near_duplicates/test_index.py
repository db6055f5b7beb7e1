"""The nearest of many references is found, whatever the number of images and the order; what only resembles it is not."""

import numpy as np
import pytest
from preparation.near_duplicates.pictures import picture
from threadpoolctl import threadpool_limits

from mixer_jax.preparation.near_duplicates.alignment import correlate
from mixer_jax.preparation.near_duplicates.fingerprint import fingerprint_image
from mixer_jax.preparation.near_duplicates.index import Index
from mixer_jax.preparation.near_duplicates.search import ALIGNMENTS, PARTS, PROBES, WHOLE, Cells, describe

PICTURES = [picture(seed) for seed in range(40)]
THUMBNAILS = np.stack([fingerprint_image(each) for each in PICTURES])
CHANGES = {
    "the same": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "cropped by 12 % at each side": lambda image: image[29:-29, 38:-38],
    "cropped by 12 % at two sides": lambda image: image[29:, :-38],
    "shifted by 12 %": lambda image: np.roll(image, (29, 38), (0, 1)),
    "less contrast": lambda image: image // 2 + 50,
}


@pytest.fixture(autouse=True)
def one_thread_for_matrix_products():
    with threadpool_limits(1, "blas"):
        yield


@pytest.mark.parametrize("change", CHANGES)
def test_the_nearest_reference_is_that_of_which_an_image_is_a_copy(change):
    index = Index([], list(THUMBNAILS))
    copies = np.stack([fingerprint_image(np.ascontiguousarray(CHANGES[change](each))) for each in PICTURES])
    matches = index.nearest(copies)
    assert [match and match.number for match in matches] == list(range(len(PICTURES)))
    assert index.nearest(copies[::-1]) == matches[::-1] and index.nearest(copies[7:8]) == matches[7:8]


def test_negatives_turned_pictures_and_others_are_not_copies():
    index = Index([], list(THUMBNAILS))
    others = [255 - PICTURES[0], np.ascontiguousarray(PICTURES[1].transpose(1, 0, 2)), picture(100), PICTURES[2][::-1].copy()]
    assert index.nearest(np.stack([fingerprint_image(each) for each in others])) == [None] * 4


def test_a_picture_with_little_detail_must_agree_where_it_is():
    plain = np.full((64, 64, 3), 250, np.uint8)
    plain[20:44, 16:32] = 20
    first, shifted = (fingerprint_image(each, 0) for each in (plain, np.roll(plain, 8, axis=1)))
    for mirrored, same in ((False, first), (True, first[:, ::-1])):
        assert correlate(first, WHOLE, same, WHOLE, mirrored) > 0.99
        assert correlate(first, WHOLE, shifted, WHOLE, mirrored) < 0.9


def test_cells_find_what_comparing_all_with_all_finds_if_they_are_few_and_do_not_depend_on_the_batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (PROBES**2, 8, 8)).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    descriptors = describe(images, WHOLE)
    queries = np.concatenate([descriptors[:50], describe(images[50:90, ::-1], WHOLE)])
    products = queries.astype(np.int64) @ descriptors.T.astype(np.int64)
    hits = Cells(descriptors).search(queries)
    expected = np.argwhere(products >= 0.7 * 127**2).tolist()
    assert sorted(map(list, hits[["query", "number"]].tolist())) == expected and len(expected) >= 50
    alone = [Cells(descriptors).search(queries[i : i + 1]) for i in range(len(queries))]
    assert sorted((i, *hit.tolist()[1:]) for i, own in enumerate(alone) for hit in own) == sorted(hits.tolist())


def test_every_part_is_searched_and_every_alignment_starts_where_both_parts_are_seen():
    assert {other for _, other in ALIGNMENTS} == set(PARTS) and len(set(ALIGNMENTS)) == len(ALIGNMENTS)
    for own, other in ALIGNMENTS:
        assert correlate(THUMBNAILS[0], own, THUMBNAILS[0], other, mirrored=False) <= 1 + 1e-6
