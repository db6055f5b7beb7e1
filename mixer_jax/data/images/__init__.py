"""Decode, crop and augment one image."""

import cv2

cv2.setNumThreads(0)  # OpenCV's own threads would be too many: the loader's workers already use every core
