"""Records and certificates in the trackers that people have: MLflow, TensorBoard, Trackio."""
