"""The search for exact and near copies of images, in other data sets and within the split that is prepared."""
