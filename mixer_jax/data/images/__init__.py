"""Decode, crop and augment one image."""

import cv2

cv2.setNumThreads(0)  # The loader's workers already use every core, so OpenCV's own threads would only compete with them.
