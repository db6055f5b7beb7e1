import numpy as np
from tiny_config import loader_config

from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.stream.loader import train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.pages.pictures import image_uri
from mixer_jax.report.runs import read_run
from mixer_jax.report.samples import training_images


def test_training_images_are_the_first_rows_of_the_runs_own_first_batch(run_folder):
    run = read_run(run_folder)
    source = open_source(run.config.data)
    transform = train_transform(run.config.augment, run.config.image_size)
    options = {"steps": range(3), "unreadable": UnreadableImages()}
    batch = next(train_batches(source, transform, loader_config(), seed=0, batch_size=16, batch_indices=np.arange(16), **options))
    pictures = training_images(run, 5)
    assert len(pictures) == 5 and len(training_images(run, 99)) == 16
    assert [picture.uri for picture in pictures] == [image_uri(image) for image in batch["image"][:5]]
    assert [picture.caption[0] for picture in pictures] == [str(label) for label in batch["labels"][:5, 0]]
