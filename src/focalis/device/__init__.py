"""The segmentation device: a DICOM node, durable jobs and a web page; see `focalis serve`."""
